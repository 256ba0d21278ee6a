"""What a merge method prepares of its members is kept within a bound, and changes no score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from families import VOCABULARY, saved, small_model

from ablate.evaluate import scorer as scoring
from ablate.evaluate.blocks import Domain
from ablate.evaluate.scorer import Merge, Scorer, ScorerSettings
from ablate.models.layout import flatten, layout_of


def test_beyond_the_bound_nothing_is_kept_and_the_merge_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "seed", "llama")
    settings = ScorerSettings(
        seed_folder=str(tmp_path / "seed"),
        trust_remote_code=False,
        length=32,
        precision="fp32",
        batch_tokens=None,
        threads=1,
        gpus=0.0,
    )
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 100)
    domain = Domain(name="x", tokens=tokens, token_bytes=np.ones(100, dtype=np.int64))
    seed, *units = (small_model("llama", number) for number in range(4))
    layout = layout_of(seed)
    merge = Merge(
        method="dare",
        members=[flatten(unit, layout).numpy() for unit in units],
        weights=[0.5, 0.3, 0.2],
        identities=["a", "b", "c"],
        seed=flatten(seed, layout).numpy(),
        options={"density": 0.5},
    )
    own = Scorer(settings, [domain])
    kept = own.score(merge, ["x"]).scores["x"].nats
    assert len(own._prepared) == 3
    monkeypatch.setattr(scoring, "PREPARED_BYTES", 10)
    assert own.score(merge, ["x"]).scores["x"].nats == kept
    assert not own._prepared
