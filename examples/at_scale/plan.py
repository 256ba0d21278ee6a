"""Print the plan of the study beside this file for texts as large as those they stand for.

`python plan.py [key=value ...]`, after make_texts.py: what `ablate plan` prints, but for the size of
the files, on which the time of `prepare` rests. The partitions are left out.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ablate.plan_table import plan_table
from ablate.planning import Plan, Work, work_of
from ablate.planning.forecast import forecast_of
from ablate.resources import load_cluster
from ablate.study import load_study
from ablate.tables import console

FOLDER = Path(__file__).parent
TEXT_TOKENS = 520_000_000_000
"""Of 500 partitions and the seed, a billion each and twenty."""


def full_size(work: Work) -> Work:
    """Return the work with the training text of a real study, alike in all its files."""
    each = TEXT_TOKENS // sum(file.kind != "domain" for file in work.texts)
    files = [
        file if file.kind == "domain" else replace(file, tokens=each, kept=each)
        for file in work.texts
    ]
    return replace(work, texts=tuple(files))


def main(overrides: list[str]) -> None:
    """Print work, times, memory and traffic."""
    study = load_study(FOLDER / "study.yaml", overrides)
    cluster = load_cluster(FOLDER / "cluster.yaml")
    work = full_size(work_of(study, cluster=cluster))
    _, *tables = plan_table(Plan(work=work, forecast=forecast_of(study, cluster, work)))
    for table in tables:
        console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
