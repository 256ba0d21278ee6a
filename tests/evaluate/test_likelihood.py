"""Losses equal an independent Hugging Face computation, however they are batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import CONFIGS, VOCABULARY, small_model

from ablate.errors import CorpusError, RunError, StudyError
from ablate.evaluate.blocks import Domain
from ablate.evaluate.head import Tiles, projection_nats
from ablate.evaluate.likelihood import Evaluator
from ablate.models.layout import bind, flatten, layout_of

LENGTH = 32


def domain(name: str, count: int, seed: int = 0) -> Domain:
    generator = np.random.default_rng(seed)
    return Domain(
        name=name,
        tokens=generator.integers(0, VOCABULARY, count).astype(np.uint16),
        token_bytes=generator.integers(0, 9, count).astype(np.uint32),
    )


DOMAINS = [domain("law", 200), domain("math", 2 * LENGTH, 1), domain("web", 3 * LENGTH + 1, 2)]


def hugging_face_nats(model: torch.nn.Module, tokens: np.ndarray) -> tuple[float, int]:
    """Return summed nats and scored tokens by `model(input_ids=w, labels=w)`, window by window."""
    nats, count = 0.0, 0
    for start in range(0, tokens.size, LENGTH):
        window = torch.from_numpy(tokens[start : start + LENGTH].astype(np.int64))[None]
        if window.shape[1] < 2:
            continue
        with torch.no_grad():
            loss = model(input_ids=window, labels=window).loss
        nats += float(loss) * (window.shape[1] - 1)
        count += window.shape[1] - 1
    return nats, count


@pytest.mark.parametrize("family", CONFIGS)
def test_losses_equal_hugging_face(family: str) -> None:
    model = small_model(family)
    evaluator = Evaluator(model, DOMAINS, length=LENGTH)
    assert evaluator.head == "chunked"
    scores = evaluator.score()
    assert list(scores) == ["law", "math", "web"]
    for item in DOMAINS:
        nats, count = hugging_face_nats(model, item.tokens)
        assert scores[item.name].tokens == count
        assert scores[item.name].nats == pytest.approx(nats, rel=1e-5)


def test_a_head_of_its_own_is_found_out_and_used() -> None:
    model = small_model("llama")
    plain = Evaluator(model, DOMAINS, length=LENGTH).score()["law"].loss
    forward = model.forward

    def twice(*args: object, **kwargs: object) -> object:
        output = forward(*args, **{k: v for k, v in kwargs.items() if k != "labels"})
        output.logits = 2 * output.logits
        return output

    model.forward = twice
    evaluator = Evaluator(model, DOMAINS, length=LENGTH)
    assert evaluator.head == "model"
    got = evaluator.score()["law"]
    tokens = torch.from_numpy(DOMAINS[0].tokens.astype(np.int64))
    nats = 0.0
    with torch.no_grad():
        for window in tokens.split(LENGTH):
            logits = 2 * forward(input_ids=window[None]).logits[0, :-1]
            nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    assert got.nats == pytest.approx(nats, rel=1e-5)
    assert got.loss != pytest.approx(plain, rel=1e-3)


def test_losses_depend_on_neither_batches_nor_tiles() -> None:
    model = small_model("llama")
    reference = Evaluator(model, DOMAINS, length=LENGTH).score()
    for batch_tokens in (1, LENGTH, 3 * LENGTH, 10_000):
        for tiles in (Tiles(rows=5, columns=7), Tiles(rows=4096, columns=4096)):
            got = Evaluator(
                model, DOMAINS, length=LENGTH, batch_tokens=batch_tokens, tiles=tiles
            ).score()
            for name, score in reference.items():
                assert got[name].nats == pytest.approx(score.nats, rel=1e-6)


def test_chosen_domains_score_as_among_all() -> None:
    evaluator = Evaluator(small_model("gpt2"), DOMAINS, length=LENGTH)
    every = evaluator.score()
    some = evaluator.score(["web", "law"])
    assert list(some) == ["web", "law"]
    for name, score in some.items():
        assert score.nats == pytest.approx(every[name].nats, rel=1e-6)
    assert evaluator.scored_tokens == sum(score.tokens for score in every.values())
    with pytest.raises(StudyError, match="did you mean 'law'"):
        evaluator.score(["laws"])


def test_blocks_sum_to_the_score() -> None:
    evaluator = Evaluator(small_model("olmo2"), DOMAINS, length=LENGTH)
    blocks, scores = evaluator.score_blocks(), evaluator.score()
    assert {name: values.size for name, values in blocks.items()} == {"law": 7, "math": 2, "web": 3}
    for name, values in blocks.items():
        assert values.dtype == np.float64
        assert values.sum() == pytest.approx(scores[name].nats, rel=1e-12)


def test_live_parameters_are_what_is_scored() -> None:
    model, other = small_model("llama"), small_model("llama", seed=1)
    layout = layout_of(model)
    flat = bind(model, layout, torch.float32)
    evaluator = Evaluator(model, DOMAINS, length=LENGTH)
    evaluator.score()
    flat.copy_(flatten(other, layout))
    expected = Evaluator(other, DOMAINS, length=LENGTH).score()
    assert evaluator.score() == expected


def test_bfloat16_is_within_a_thousandth() -> None:
    model = small_model("llama")
    exact = Evaluator(model, DOMAINS, length=LENGTH).score()
    bind(model, layout_of(model), torch.bfloat16)
    evaluator = Evaluator(model, DOMAINS, length=LENGTH)
    assert evaluator.head == "chunked"
    for name, score in evaluator.score().items():
        assert score.loss == pytest.approx(exact[name].loss, rel=1e-3)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_logits_of_any_size_are_summed_safely(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(16, 501)
    hidden = scale * torch.randn(40, 16, generator=generator)
    targets = torch.randint(0, 501, (40,), generator=generator)
    with torch.inference_mode():
        expected = torch.nn.functional.cross_entropy(
            head(hidden).double(), targets, reduction="none"
        )
        for offset in (-200.0, 0.0, 200.0):
            got = projection_nats(
                hidden, targets, head, lambda x, o=offset: x + o, Tiles(rows=16, columns=64)
            )
            assert torch.allclose(got.double(), expected, rtol=1e-5, atol=5e-5)


def test_a_model_that_overflows_is_named_with_its_domain() -> None:
    model = small_model("llama")
    evaluator = Evaluator(model, DOMAINS, length=LENGTH)
    bind(model, layout_of(model), torch.float32).fill_(torch.nan)
    with pytest.raises(RunError, match="must be finite on domain 'law', got nan"):
        evaluator.score()


def test_what_does_not_fit_the_model_is_refused() -> None:
    model = small_model("gpt2")
    with pytest.raises(StudyError, match="at most the model's 128 positions, got 129"):
        Evaluator(model, DOMAINS, length=129)
    large = Domain(
        name="big", tokens=np.array([1, VOCABULARY], np.uint32), token_bytes=np.ones(2, np.uint32)
    )
    with pytest.raises(StudyError, match="domain 'big' has 320"):
        Evaluator(model, [large], length=LENGTH)
    with pytest.raises(CorpusError, match="'short' has 1"):
        Evaluator(model, [domain("short", 1)], length=LENGTH)


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_device_gives_the_losses_of_the_cpu(family: str) -> None:
    model = small_model(family)
    expected = Evaluator(model, DOMAINS, length=LENGTH).score()
    for dtype, slack in ((torch.float32, 1e-4), (torch.bfloat16, 1e-3)):
        bound = small_model(family)
        bind(bound, layout_of(bound), dtype, "cuda")
        for name, score in Evaluator(bound, DOMAINS, length=LENGTH).score().items():
            assert score.loss == pytest.approx(expected[name].loss, rel=slack)


def with_memory_for(
    monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator, rows: int, tried: list[int]
) -> None:
    """Let torch run out of memory above so many windows in one pass."""
    whole = evaluator._hidden

    def hidden(tokens: torch.Tensor) -> torch.Tensor:
        tried.append(len(tokens))
        if len(tokens) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(tokens)

    monkeypatch.setattr(evaluator, "_hidden", hidden)


def test_a_batch_that_memory_does_not_hold_is_halved_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model("llama")
    reference = Evaluator(model, DOMAINS, length=LENGTH).score_blocks()
    evaluator = Evaluator(model, DOMAINS, length=LENGTH, batch_tokens=8 * LENGTH)
    tried: list[int] = []
    with_memory_for(monkeypatch, evaluator, 2, tried)
    for name, nats in evaluator.score_blocks().items():
        np.testing.assert_allclose(nats, reference[name], rtol=1e-5)
    assert tried[:3] == [8, 4, 2] and max(tried[2:]) == 2
    assert evaluator.batch_tokens == 2 * LENGTH
    evaluator.limit_batch(3)
    assert evaluator.batch_tokens == LENGTH


def test_a_window_that_memory_does_not_hold_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluator = Evaluator(small_model("llama"), DOMAINS, length=LENGTH)
    with_memory_for(monkeypatch, evaluator, 0, [])
    with pytest.raises(RunError, match=r"must hold one window of 32 tokens.*lower evaluate"):
        evaluator.score()


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluator = Evaluator(small_model("llama"), DOMAINS, length=LENGTH)

    def broken(tokens: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(evaluator, "_hidden", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        evaluator.score()
