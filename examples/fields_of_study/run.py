"""Run the study in two views and print the tables: `python run.py FOLDER [KEY=VALUE]...`.

*Even*: a partition is one field in one year (or part), and has one base unit. *Uneven*: a partition
is a whole field, and has as many units as it has text for. What is finished is not done again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tables import print_tables

import ablate

HERE = Path(__file__).parent


def main(folder: Path, overrides: Sequence[str] = ()) -> None:
    """Train, merge, check against true runs, and print what came of it."""
    pool = run_even(folder, overrides)
    run_uneven(folder, Path(pool.root) / pool.seed.folder, overrides)
    print_tables(folder)


def run_even(folder: Path, overrides: Sequence[str] = ()) -> ablate.ModelPool:
    """Run the study as it stands; return its pool."""
    file = folder / "study.yaml"
    if not file.exists():
        shutil.copy(HERE / "study.yaml", file)
    study = ablate.load_study(file, [*overrides, "workspace=work/even"])
    pool = ablate.train(study)
    board = ablate.search(study, pool)
    ablate.validate(study, pool, board)
    return pool


def run_uneven(folder: Path, seed: Path, overrides: Sequence[str] = ()) -> None:
    """Run it with whole fields as partitions, from the seed model of the even view.

    Every mixture is merged with the weights of its units (micro), and with equal weights of its
    fields (macro). The true runs are on all the units' text.
    """
    view = [
        *overrides,
        "workspace=work/uneven",
        "corpus.sources.0.partition_by=[field]",
        f"model={{path: {json.dumps(str(seed))}}}",
        "seed={}",
        "tokenizer={}",
    ]
    micro = ablate.load_study(folder / "study.yaml", view)
    macro = ablate.load_study(folder / "study.yaml", [*view, "search.merge.weighting=macro"])
    pool = ablate.train(micro)
    ablate.search(macro, pool)
    board = ablate.search(micro, pool)
    ablate.validate(micro, pool, board)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except ablate.UserError as error:
        sys.exit(f"run: {error}")
