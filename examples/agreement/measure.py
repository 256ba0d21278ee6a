"""How well proxies agree with trained models under several recipes: `python measure.py TEXTS OUT`.

TEXTS is a folder with the five <name>.train.jsonl.gz that study.yaml names; OUT gets the workspace
and results.json, a list with one entry per recipe. Runs again from where it was stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ablate
from ablate.corpus.embedded import write_embedded
from ablate.validate.statistics import AgreementWithin, agree, agree_over, agree_within

HERE = Path(__file__).parent
RECIPES: dict[str, list[str]] = {
    "as it stands": [],
    "each mixture trained twice": ["validate.replicates=2"],
    "mean of the last half": ["train.average=0.5"],
    "mean of the whole branch": ["train.average=1.0"],
    "replay 0.5": ["train.replay={fraction: 0.5, from: seed}"],
    "rate 1.5e-4": ["train.learning_rate=1.5e-4"],
    "half the branch": ["train.tokens_per_unit=20_000"],
    "carried moments": ["train.carry_moments=true"],
}
SUMMARY = {"in_domain": "partition", "outside": "domain"}
AGAIN = "a second training"
HEADS = (
    "| proxy or baseline | in-domain | outside | all sizes | regret | worst |",
    "|---|---:|---:|---:|---:|---:|",
)


def main(texts: Path, out: Path) -> None:
    """Run every recipe and print the table."""
    found = []
    for name, overrides in RECIPES.items():
        study = prepare(texts, out, overrides)
        pool = ablate.train(study)
        board = ablate.search(study, pool)
        check = ablate.validate(study, pool, board)
        found.append({"recipe": name, "overrides": overrides, **_row(check)})
        (out / "results.json").write_text(json.dumps(found, indent=1))
        print(_lines(found[-1]), flush=True)


def prepare(texts: Path, out: Path, overrides: list[str]) -> ablate.Study:
    """Return the study with overrides, its texts and the workspace being in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "study.yaml").exists():
        write_embedded(out / "embedded")
        shutil.copytree(texts, out / "texts", dirs_exist_ok=True)
        shutil.copy(HERE / "study.yaml", out / "study.yaml")
    return ablate.load_study(out / "study.yaml", overrides)


def _row(check: ablate.Agreement) -> dict[str, Any]:
    row = _proxies(check)
    if all(len(one.losses) > 1 for one in check.trained):
        again = _again(check)
        for column, value in again.items():
            row[column] = {AGAIN: value, **row[column]}
    return row


def _again(check: ablate.Agreement) -> dict[str, Any]:
    """Return how well a second training of each mixture foretells the first: no proxy is nearer."""
    first, second = ([one.losses[turn] for one in check.trained] for turn in (0, 1))
    sizes = [one.subject.size for one in check.trained]

    def sides(target: str) -> tuple[list[float], list[float]]:
        return [one[target] for one in second], [one[target] for one in first]

    within = {name: agree_within(*sides(name), sizes, rng_seed=0) for name in check.targets}
    overall = agree(*sides("objective"), rng_seed=0)
    return {
        "spearman": {
            label: agree_over([within[n] for n, its in check.targets.items() if its == kind])[
                "spearman"
            ].value
            for label, kind in SUMMARY.items()
        }
        | {"objective": overall["spearman"].value},
        "regret": overall["regret_share"].value,
        "worst": _worst(within.values()),
    }


def _worst(within: Iterable[AgreementWithin]) -> float | None:
    """Return the lowest Spearman of any target and size; None where nothing varies within one."""
    found = (by["spearman"].value for one in within for by in one.by_size.values())
    return min((value for value in found if value is not None), default=None)


def _proxies(check: ablate.Agreement) -> dict[str, Any]:
    error = check.objective_fit.errors() if check.objective_fit else None
    overall = check.tables["objective"]
    return {
        "headline": check.headline,
        "mixtures": len(check.trained),
        "spearman": {
            name: {kind: check.summary[name][kind]["spearman"].value for kind in SUMMARY}
            | {"objective": overall[name].overall["spearman"].value}
            for name in check.proxies
        },
        "regret": {name: overall[name].overall["regret_share"].value for name in check.proxies},
        "worst": {
            name: _worst(table[name].within for table in check.tables.values())
            for name in check.proxies
        },
        "error": error.root_mean_square if error else None,
        "coverage": error.coverage.value if error else None,
        "model": {name: fit.model for name, fit in check.fits.items()},
    }


def _lines(row: dict[str, object]) -> str:
    """Return a recipe's table as it stands in the README."""
    head = f"{row['recipe']}: {row['mixtures']} trained mixtures, held-out error {row['error']:.3f}"
    lines = [f"\n{head} nats, in its interval {row['coverage']:.0%}\n", *HEADS]
    regret, worst = row["regret"], row["worst"]
    assert (
        isinstance(row["spearman"], dict) and isinstance(regret, dict) and isinstance(worst, dict)
    )
    for name, values in row["spearman"].items():
        cells = [_cell(values[column], ".3f") for column in (*SUMMARY, "objective")]
        cells += [_cell(regret[name], ".0f") + "%", _cell(worst[name], ".2f")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
