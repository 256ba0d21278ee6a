"""How well proxies agree with trained models under several recipes: `python measure.py TEXTS OUT`.

TEXTS is a folder with the five <name>.train.jsonl.gz that study.yaml names; OUT gets the workspace
and results.json, a list with one entry per recipe. Runs again from where it was stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import ablate
from ablate.corpus.embedded import write_embedded

HERE = Path(__file__).parent
RECIPES: dict[str, list[str]] = {
    "as it stands": [],
    "mean of the last half": ["train.average=0.5"],
    "mean of the whole branch": ["train.average=1.0"],
    "replay 0.5": ["train.replay={fraction: 0.5, from: seed}"],
    "rate 1.5e-4": ["train.learning_rate=1.5e-4"],
    "half the branch": ["train.tokens_per_unit=20_000"],
    "carried moments": ["train.carry_moments=true"],
}
SUMMARY = ("in_domain", "outside")


def main(texts: Path, out: Path) -> None:
    """Run every recipe and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "study.yaml").exists():
        write_embedded(out / "embedded")
        shutil.copytree(texts, out / "texts", dirs_exist_ok=True)
        shutil.copy(HERE / "study.yaml", out / "study.yaml")
    found = []
    for name, overrides in RECIPES.items():
        study = ablate.load_study(out / "study.yaml", overrides)
        pool = ablate.train(study)
        board = ablate.search(study, pool)
        check = ablate.validate(study, pool, board)
        found.append({"recipe": name, "overrides": overrides, **_row(check)})
        (out / "results.json").write_text(json.dumps(found, indent=1))
        print(_lines(found[-1]), flush=True)


def _row(check: ablate.Agreement) -> dict[str, object]:
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
            name: min(
                (
                    value
                    for table in check.tables.values()
                    for by_size in table[name].within.by_size.values()
                    if (value := by_size["spearman"].value) is not None
                ),
                default=None,  # neither the seed nor a number of tokens varies within a size
            )
            for name in check.proxies
        },
        "error": error.root_mean_square if error else None,
        "coverage": error.coverage.value if error else None,
        "model": {name: fit.model for name, fit in check.fits.items()},
    }


def _lines(row: dict[str, object]) -> str:
    head = f"\n{row['recipe']}: held-out error {row['error']:.3f} nats, {row['mixtures']} mixtures"
    lines = [head, f"{'proxy':<32}{'in-domain':>10}{'outside':>10}{'all sizes':>10}{'regret':>8}"]
    regret = row["regret"]
    assert isinstance(row["spearman"], dict) and isinstance(regret, dict)
    for name, values in row["spearman"].items():
        cells = [values["in_domain"], values["outside"], values["objective"]]
        shown = "".join(f"{'' if v is None else format(v, '.3f'):>10}" for v in cells)
        lines.append(f"{name:<32}{shown}{regret[name]:>7.0f}%")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
