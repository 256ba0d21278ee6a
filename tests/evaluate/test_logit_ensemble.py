"""The logit-averaged ensemble equals what the models' whole logits say, in whatever tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import VOCABULARY, saved, small_model

from ablate.errors import RunError
from ablate.evaluate.blocks import Domain
from ablate.evaluate.head import Tiles
from ablate.evaluate.likelihood import Evaluator
from ablate.evaluate.logit_ensemble import logit_ensemble
from ablate.evaluate.scorer import Scorer, ScorerSettings
from ablate.models.layout import flatten, layout_of

LENGTH, TOKENS = 32, 200  # six windows and a short one
FAMILIES = ["llama", "llama-untied", "gpt2", "gpt-neox", "gemma2", "granite"]
WEIGHTS = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.7, 0.0, 0.3]])


def domain() -> Domain:
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, TOKENS).astype(np.uint16)
    return Domain(name="law", tokens=tokens, token_bytes=np.full(TOKENS, 3, dtype=np.uint32))


def scorer(folder: Path, family: str, batch_tokens: int = 3 * LENGTH) -> Scorer:
    saved(folder / "seed", family)
    settings = ScorerSettings(
        seed_folder=str(folder / "seed"),
        trust_remote_code=False,
        length=LENGTH,
        precision="fp32",
        batch_tokens=batch_tokens,
        threads=1,
        gpus=0.0,
    )
    return Scorer(settings, [domain()])


def units(family: str, count: int = 3) -> list[np.ndarray]:
    found = []
    for seed in range(1, count + 1):
        model = small_model(family, seed)
        found.append(flatten(model, layout_of(model)).numpy())
        found[-1].setflags(write=False)  # as in the object store
    return found


def loss_by_hand(family: str, weights: np.ndarray) -> float:
    """Return the loss by the models' own logits, in double precision."""
    models = [small_model(family, seed).double() for seed in range(1, len(weights) + 1)]
    tokens = torch.from_numpy(domain().tokens.astype(np.int64))
    nats, count = 0.0, 0
    with torch.no_grad():
        for window in tokens.split(LENGTH):
            logits = [model(input_ids=window[None]).logits[0, :-1].double() for model in models]
            mixed = sum(w * z for w, z in zip(weights.tolist(), logits, strict=True))
            assert isinstance(mixed, torch.Tensor)
            chosen = mixed.gather(1, window[1:, None])[:, 0]
            nats += float((mixed.logsumexp(1) - chosen).sum())
            count += len(window) - 1
    return nats / count


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_equal_those_of_the_models_whole_logits(family: str, tmp_path: Path) -> None:
    own = scorer(tmp_path, family)
    assert own.evaluator.head == "chunked"
    scores = logit_ensemble(own, "law", units(family), WEIGHTS)
    for score, weights in zip(scores, WEIGHTS, strict=True):
        assert score.loss == pytest.approx(loss_by_hand(family, weights), rel=1e-5)
        assert score.tokens == TOKENS - 7 and score.bytes == 3 * score.tokens
        assert len(score.groups) == 7 and score.stderr > 0


@pytest.mark.parametrize("family", ["llama", "llama-untied", "gpt2"])
def test_one_unit_alone_is_that_unit(family: str, tmp_path: Path) -> None:
    found = logit_ensemble(scorer(tmp_path, family), "law", units(family), np.eye(3))
    for place, score in enumerate(found):
        own = Evaluator(small_model(family, place + 1), [domain()], length=LENGTH).score()["law"]
        assert score.loss == pytest.approx(own.loss, rel=1e-6)
        assert score.stderr == pytest.approx(own.stderr, rel=1e-5)
        assert score.groups == pytest.approx(own.groups, rel=1e-5)


def test_tiles_and_batches_do_not_matter(tmp_path: Path) -> None:
    expected = [
        s.loss for s in logit_ensemble(scorer(tmp_path, "llama"), "law", units("llama"), WEIGHTS)
    ]
    for rows, columns, batch_tokens in ((1, 7, 1), (5, VOCABULARY, 64), (4096, 64, 4096)):
        own = scorer(tmp_path, "llama", batch_tokens)
        tiles = Tiles(rows=rows, columns=columns)
        found = logit_ensemble(own, "law", units("llama"), WEIGHTS, tiles)
        assert [score.loss for score in found] == pytest.approx(expected, rel=1e-6)


def test_a_unit_without_weight_has_no_part_in_a_mixture(tmp_path: Path) -> None:
    sound, other, lost = units("llama")
    broken = np.full_like(lost, np.nan)
    own = scorer(tmp_path, "llama")
    weights = np.array([[0.5, 0.5, 0.0]])
    expected = logit_ensemble(own, "law", [sound, other], weights[:, :2])
    assert logit_ensemble(own, "law", [sound, other, broken], weights) == expected
    beside = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    assert logit_ensemble(own, "law", [sound, other, lost], beside)[:1] == expected
    with pytest.raises(RunError, match="domain 'law'"):
        logit_ensemble(own, "law", [sound, other, broken], beside)


def test_a_head_of_its_own_gives_its_logits(tmp_path: Path) -> None:
    own = scorer(tmp_path, "llama")
    expected = [score.loss for score in logit_ensemble(own, "law", units("llama"), WEIGHTS)]
    own.evaluator.head = "model"
    found = logit_ensemble(own, "law", units("llama"), WEIGHTS)
    assert [score.loss for score in found] == pytest.approx(expected, rel=1e-6)
    model = own.evaluator.model
    forward = model.forward

    def twice(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output

    model.forward = twice
    doubled = logit_ensemble(own, "law", units("llama"), WEIGHTS / 2)
    assert [score.loss for score in doubled] == pytest.approx(expected, rel=1e-6)
