"""The predictors on a recorded table of truly trained mixtures, where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from ablate.search.predictors import PREDICTORS
from ablate.search.predictors.predictor import Array

DATA = Path(
    os.environ.get("ABLATE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
LOSS = "metric/the_pile_pile_cc_val_loss"
RECORDED = 0.962

pytestmark = pytest.mark.skipif(
    not (DATA / "regmix").exists(), reason=f"no table of trained mixtures in {DATA}"
)


def table(split: str, size: str) -> tuple[Array, Array]:
    mixtures = pd.read_csv(DATA / "regmix" / f"{split}_mixture_{size}.csv", index_col="index")
    losses = pd.read_csv(DATA / "regmix" / f"{split}_pile_loss_{size}.csv", index_col="index")
    joined = mixtures.join(losses[[LOSS]], how="inner")
    return joined[mixtures.columns].to_numpy(float), joined[LOSS].to_numpy(float)


def rank(name: str, rows: int, size: str) -> float:
    weights, losses = table("train", "1m")
    asked, seen = table("test", size)
    mean, _ = PREDICTORS[name](weights[:rows], losses[:rows], 0).predict(asked)
    return float(spearmanr(mean, seen).statistic)


def test_the_best_predictor_ranks_large_models_as_well_as_the_recorded_trees() -> None:
    assert max(rank(name, 512, "1B") for name in ("pairwise", "mixing-law")) >= RECORDED


def test_an_eighth_of_the_rows_is_close() -> None:
    assert max(rank(name, 64, "1B") for name in ("pairwise", "mixing-law")) >= 0.94


def test_small_models_not_fitted_lie_within_their_standard_errors() -> None:
    weights, losses = table("train", "1m")
    asked, seen = table("test", "1m")
    mean, stderr = PREDICTORS["gaussian"](weights[:150], losses[:150], 0).predict(asked)
    assert spearmanr(mean, seen).statistic >= 0.97
    assert np.mean(np.abs(seen - mean) <= 1.645 * stderr) == pytest.approx(0.9, abs=0.07)
