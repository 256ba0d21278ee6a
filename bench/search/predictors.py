"""Predictors on a recorded table of truly trained mixtures, and the time that they take.

The table is RegMix's (arXiv 2407.01492): 512 models of 1M parameters on mixtures of 17 domains, and
64 models of 1B parameters on others. A predictor is fitted to the small models' losses on Pile-CC
and must rank the large ones. Recorded for boosted trees (LightGBM) on 512 rows: Spearman 0.962,
pairwise decision accuracy 92.7%.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from ablate.search.predictors import PREDICTORS, choose
from bench._numbers import at_least, at_most

DATA = Path(
    os.environ.get("ABLATE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
LOSS = "metric/the_pile_pile_cc_val_loss"
ROWS = (512, 256, 128, 64)
DRAWS = 3
RECORDED_SPEARMAN, RECORDED_DECISIONS = 0.962, 0.927
REPEATS = 5
TRIALS, PARTITIONS, ASKED = 60, 12, 4096
CHOICE_LIMIT_MS = 500.0

Array = npt.NDArray[np.float64]


def run() -> list[dict[str, Any]]:
    """Return correlations and decision accuracies at 1B, then milliseconds of CPU time."""
    return [*_agreement(), *_times()]


def _agreement() -> list[dict[str, Any]]:
    if not (DATA / "regmix").exists():
        detail = "skipped: no regmix table; name its parent folder in ABLATE_SHARED_DATA"
        return [at_least("search/predictors/regmix", 0.0, "rows", None, detail)]
    train, asked = _table("train", "1m"), _table("test", "1B")
    numbers = []
    for name in PREDICTORS:
        for rows in ROWS:
            draws = 1 if rows == len(train[1]) else DRAWS
            ranks = [_ranked(name, train, asked, rows, draw) for draw in range(draws)]
            numbers += _ranking_numbers(name, rows, np.mean(ranks, axis=0), draws)
    numbers += [_best(numbers, "spearman", "x", RECORDED_SPEARMAN)]
    return [*numbers, _best(numbers, "decisions", "x", RECORDED_DECISIONS)]


def _table(split: str, size: str) -> tuple[Array, Array]:
    """Return proportions [n, 17] and Pile-CC losses [n] in nats."""
    mixtures = pd.read_csv(DATA / "regmix" / f"{split}_mixture_{size}.csv", index_col="index")
    losses = pd.read_csv(DATA / "regmix" / f"{split}_pile_loss_{size}.csv", index_col="index")
    joined = mixtures.join(losses[[LOSS]], how="inner")
    return joined[mixtures.columns].to_numpy(np.float64), joined[LOSS].to_numpy(np.float64)


def _ranked(
    name: str, train: tuple[Array, Array], asked: tuple[Array, Array], rows: int, draw: int
) -> tuple[float, float]:
    """Return Spearman and pairwise decision accuracy of one fit to `rows` drawn rows."""
    drawn = np.random.default_rng(draw).permutation(len(train[1]))[:rows]
    mean, _ = PREDICTORS[name](train[0][drawn], train[1][drawn], draw).predict(asked[0])
    left, right = np.triu_indices(len(mean), 1)
    agree = np.sign(mean[left] - mean[right]) == np.sign(asked[1][left] - asked[1][right])
    return float(spearmanr(mean, asked[1]).statistic), float(np.mean(agree))


def _ranking_numbers(name: str, rows: int, ranks: Array, draws: int) -> list[dict[str, Any]]:
    about = f"{rows} rows of 1M models, {draws} draws, against 64 models of 1B"
    start = f"search/predictors/{name}/{rows}"
    return [
        at_least(f"{start}/spearman", ranks[0], "x", None, about),
        at_least(f"{start}/decisions", ranks[1], "x", None, about),
    ]


def _best(numbers: list[dict[str, Any]], figure: str, unit: str, limit: float) -> dict[str, Any]:
    """Return the best predictor's figure with all rows beside the recorded one."""
    ending = f"/{ROWS[0]}/{figure}"
    best = max((n for n in numbers if n["name"].endswith(ending)), key=lambda n: n["value"])
    detail = f"{best['name'].split('/')[2]}; the limit is recorded boosted trees"
    return at_least(f"search/predictors/best/{figure}", best["value"], unit, limit, detail)


def _times() -> list[dict[str, Any]]:
    """Return CPU milliseconds of fits, of a batch of predictions, and of a whole choice."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(PARTITIONS), TRIALS)
    losses = 3.0 + (weights @ rng.normal(size=PARTITIONS)) ** 2 + 0.01 * rng.normal(size=TRIALS)
    asked = rng.dirichlet(np.ones(PARTITIONS), ASKED)
    numbers = []
    for name, fit in PREDICTORS.items():
        fitted = fit(weights, losses, 0)
        spent = _milliseconds(lambda fit=fit: fit(weights, losses, 0))
        about = f"{TRIALS} rows, {PARTITIONS} partitions, CPU time, one thread"
        numbers.append(at_most(f"search/predictors/{name}/fit", spent, "ms", None, about))
        spent = _milliseconds(lambda fitted=fitted: fitted.predict(asked))
        numbers.append(
            at_most(f"search/predictors/{name}/predict", spent, "ms", None, f"{ASKED} mixtures")
        )
    spent = _milliseconds(lambda: choose(weights, losses, 0))
    detail = "three fits and their leave-one-out errors"
    return [*numbers, at_most("search/predictors/choose", spent, "ms", CHOICE_LIMIT_MS, detail)]


def _milliseconds(work: Any) -> float:
    """Return the least CPU time of a few repeats."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return 1e3 * best
