"""The evaluator against a plain Hugging Face loop, and against the machine's matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from ablate.evaluate.blocks import Domain
from ablate.evaluate.likelihood import Evaluator
from ablate.models.build import build_model
from ablate.models.layout import bind, layout_of
from ablate.study import ModelSettings
from bench._numbers import at_least, at_most

BATCH = 8
LIMIT = 1.5


def run() -> list[dict[str, Any]]:
    """Return tokens/s of both, interleaved, one thread each, float32; best of the repeats."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rate = _matrix_rate()
        return [
            at_least(
                "evaluate/matrix-rate", rate / 1e9, "GFLOP/s", None, "1024^3 sgemm, one thread"
            ),
            *_case("32k", "tiny", 32768, windows=16, length=1024, repeats=3, rate=rate),
            *_case("8k", "tiny", 8192, windows=16, length=1024, repeats=3, rate=rate),
            *_case("130m", "130m", 50280, windows=8, length=256, repeats=2, rate=rate),
        ]
    finally:
        torch.set_num_threads(before)


def _case(
    label: str,
    preset: Literal["tiny", "130m"],
    vocabulary: int,
    *,
    windows: int,
    length: int,
    repeats: int,
    rate: float,
) -> list[dict[str, Any]]:
    model = build_model(ModelSettings(preset=preset), vocabulary, 0, 0, length)
    bind(model, layout_of(model), torch.float32)
    tokens = np.random.default_rng(0).integers(0, vocabulary, windows * length)
    domain = Domain(name="random", tokens=tokens, token_bytes=np.ones_like(tokens))
    evaluator = Evaluator(model, [domain], length=length)
    batches = torch.from_numpy(tokens).view(windows, length).split(BATCH)
    losses: dict[str, float] = {}

    def ours() -> None:
        losses["ours"] = evaluator.score()["random"].loss

    def plain() -> None:
        with torch.inference_mode():
            parts = [model(input_ids=batch, labels=batch).loss for batch in batches]
        losses["plain"] = float(torch.stack(parts).mean())

    seconds = _interleaved({"ours": ours, "plain": plain}, repeats)
    speed = {name: tokens.size / value for name, value in seconds.items()}
    flops = _flops_per_token(model, length)
    shape = f"{preset}, vocabulary {vocabulary}, {length}-token windows"
    limit = LIMIT if label == "32k" else None  # the projection must be most of the work
    drift = abs(losses["ours"] / losses["plain"] - 1)
    return [
        at_least(f"evaluate/tokens-{label}", speed["ours"], "tokens/s", None, f"{shape}, CPU time"),
        at_least(f"evaluate/plain-{label}", speed["plain"], "tokens/s", None, "Hugging Face loop"),
        at_least(
            f"evaluate/speedup-{label}",
            speed["ours"] / speed["plain"],
            "x",
            limit,
            "one thread each",
        ),
        at_least(
            f"evaluate/matrix-share-{label}",
            flops * speed["ours"] / rate,
            "x",
            None,
            "of sgemm's rate",
        ),
        at_most(f"evaluate/drift-{label}", drift, "relative", 1e-5, "loss against the loop's"),
    ]


def _interleaved(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the best CPU seconds of each, taken in turns; one unmeasured turn first.

    One thread works, so this is the wall time of an idle machine, whatever else runs on this one.
    """
    best = dict.fromkeys(works, float("inf"))
    for turn in range(repeats + 1):
        for name, work in works.items():
            started = time.process_time()
            work()
            if turn:
                best[name] = min(best[name], time.process_time() - started)
    return best


def _matrix_rate() -> float:
    """Return FLOP/s of a square float32 product."""
    size = 1024
    left, right = torch.rand(size, size), torch.rand(size, size)
    seconds = _interleaved({"product": lambda: torch.mm(left, right)}, 20)["product"]
    return 2 * size**3 / seconds


def _flops_per_token(model: PreTrainedModel, length: int) -> float:
    """Return 2 per weight of every matrix, the head included, and causal attention's products."""
    config = model.config
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    if not config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.numel()
    return 2.0 * weights + 2.0 * length * config.hidden_size * config.num_hidden_layers
