"""How well predictions foretell mixtures that took no part: `python unseen.py TEXTS OUT`.

Trains sixty mixtures of study.yaml for real, twenty of each size; calibrates on a few of each size,
drawn blindly, many times over, and compares what is predicted of all others with their training.
TEXTS and OUT are those of measure.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measure import SUMMARY, prepare

import ablate
from ablate.progress import bar
from ablate.validate.agreement import Trained, fit_trained
from ablate.validate.statistics import agree, agree_over, agree_within
from ablate.validate.subjects import OBJECTIVE, features

MANY = ["validate.mixtures=60", "search.trials=100"]
OF_A_SIZE = (3, 4, 6, 12)
DRAWS = 20
PROXIES = ("merge", "ensemble", "members_mean", "calibrated")
COLUMNS = ("in_domain", "outside", "all sizes", "regret", "error", "covered")

Row = dict[str, float]


def main(texts: Path, out: Path) -> None:
    """Train the mixtures and print the table."""
    study = prepare(texts, out, MANY)
    pool = ablate.train(study)
    check = ablate.validate(study, pool, ablate.search(study, pool))
    print("| fitted to | proxy | in-domain | outside | all sizes | regret | error | held |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    with bar("calibrations", len(OF_A_SIZE) * DRAWS) as advance:
        for turn, count in enumerate(OF_A_SIZE):
            rng = np.random.default_rng(0)
            found = []
            for draw in range(DRAWS):
                found.append(_judged(check, *_split(check.trained, count, rng)))
                advance(turn * DRAWS + draw + 1, "")
            for name in PROXIES:
                print(_line(len({one.subject.size for one in check.trained}) * count, name, found))


def _split(
    trained: Sequence[Trained], count: int, rng: np.random.Generator
) -> tuple[list[Trained], list[Trained]]:
    """Return `count` mixtures of each size drawn blindly, and all others."""
    sizes = np.array([one.subject.size for one in trained])
    chosen = {
        int(place)
        for size in np.unique(sizes)
        for place in rng.permutation(np.flatnonzero(sizes == size))[:count]
    }
    return (
        [one for place, one in enumerate(trained) if place in chosen],
        [one for place, one in enumerate(trained) if place not in chosen],
    )


def _judged(check: ablate.Agreement, few: list[Trained], rest: list[Trained]) -> dict[str, Row]:
    """Return how well each proxy, and the calibration of `few`, foretells the rest."""
    fits, whole = fit_trained(few, check.domains, check.weights)
    assert whole is not None
    subjects = [one.subject for one in rest]
    truth = {t: np.array([one.mean(t) for one in rest]) for t in check.targets}
    guesses = {
        name: {t: np.array([one.proxies[name][t] for one in subjects]) for t in check.targets}
        for name in PROXIES[:-1]
    }
    asked = {name: features(subjects, name) for name in fits}
    predicted = whole.predict({name: asked[name] for name in whole.fits})
    guesses["calibrated"] = {
        **{name: fit.predict(asked[name]).mean for name, fit in fits.items()},
        OBJECTIVE: predicted.mean,
    }
    inside = (predicted.lower <= truth[OBJECTIVE]) & (truth[OBJECTIVE] <= predicted.upper)
    sizes = [one.size for one in subjects]
    found = {}
    for name, values in guesses.items():
        within = {
            label: agree_over(
                [
                    agree_within(values[t], truth[t], sizes, rng_seed=0, draws=1)
                    for t, its in check.targets.items()
                    if its == kind
                ]
            )["spearman"]
            for label, kind in SUMMARY.items()
        }
        overall = agree(values[OBJECTIVE], truth[OBJECTIVE], rng_seed=0, draws=1)
        found[name] = {label: float(estimate.value or 0) for label, estimate in within.items()} | {
            "all sizes": float(overall["spearman"].value or 0),
            "regret": float(overall["regret_share"].value or 0),
        }
    error = predicted.mean - truth[OBJECTIVE]
    found["calibrated"] |= {
        "error": float(np.sqrt(np.mean(error**2))),
        "covered": float(np.mean(inside)),
    }
    return found


def _line(count: int, name: str, found: list[dict[str, Row]]) -> str:
    """Return a row of the table: the mean over draws of each column."""
    forms = dict(zip(COLUMNS, (".3f", ".3f", ".3f", ".1f", ".3f", ".0%"), strict=True))
    cells = []
    for column, form in forms.items():
        values = [one[name][column] for one in found if column in one[name]]
        text = format(float(np.mean(values)), form) if values else ""
        cells.append(text + "%" if column == "regret" else text)
    return f"| {count} | {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
