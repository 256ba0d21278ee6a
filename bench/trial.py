"""Where the time of a trial goes, and what was tried to shorten it; CPU time, one thread.

A trial is a merge, the trunk of the model, its vocabulary projection with the cross-entropy, and
sums. What Ray and Tune add is in `bench tune`. The alternatives are measured beside the way taken
in the same run; above 1 means that the alternative is dearer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ablate.evaluate.blocks import Domain
from ablate.evaluate.likelihood import CPU_BATCH_TOKENS, Evaluator
from ablate.merge import MergeInputs, merge_method, run_method
from ablate.models.build import build_model
from ablate.models.layout import Layout, bind, layout_of
from ablate.study import ModelSettings
from bench._numbers import at_most

MEMBERS = 8
REPEATS = 3
BATCHES = (512, 2048, 8192)
SLICE = 1 << 14


def run() -> list[dict[str, Any]]:
    """Return the shares of a trial for two shapes, and the alternatives' costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            *_case(
                "tiny",
                ModelSettings(preset="tiny"),
                vocabulary=8192,
                tokens=12 * 2048,
                tried=BATCHES,
            ),
            *_case("130m", ModelSettings(preset="130m"), vocabulary=50_280, tokens=1024, tried=()),
        ]
    finally:
        torch.set_num_threads(before)


def _case(
    label: str,
    shape: ModelSettings,
    *,
    vocabulary: int,
    tokens: int,
    tried: tuple[int, ...],
) -> list[dict[str, Any]]:
    model = build_model(shape, vocabulary, 0, 0, 256)
    layout = layout_of(model)
    flat = bind(model, layout, torch.float32)
    members = [flat * (1 + 1e-3 * place) for place in range(MEMBERS)]
    ids = np.random.default_rng(0).integers(0, vocabulary, tokens)
    domain = Domain(name="random", tokens=ids, token_bytes=np.ones_like(ids))
    watched = _Watched(model, [domain], length=256)
    merge = _least(lambda: _merge(flat, members, layout))
    whole = _least(watched.score)
    parts = {"merge": merge, **watched.least(), "sums": 0.0}
    parts["sums"] = max(0.0, whole - parts["trunk"] - parts["projection"])
    detail = f"{layout.parameters / 1e6:.1f}M, {MEMBERS} members, {tokens} tokens"
    total = sum(parts.values())
    numbers = [
        at_most(
            f"trial/{label}/{name}",
            1e3 * seconds,
            "ms",
            None,
            f"{100 * seconds / total:.0f}% of it",
        )
        for name, seconds in parts.items()
    ]
    numbers.append(at_most(f"trial/{label}/whole", 1e3 * (merge + whole), "ms", None, detail))
    for size in tried:
        other = Evaluator(model, [domain], length=256, batch_tokens=size)
        name = f"trial/{label}/tried/batch-{size}"
        numbers.append(
            at_most(
                name,
                _least(other.score) / whole,
                "x",
                None,
                f"evaluation; taken: {CPU_BATCH_TOKENS}",
            )
        )
    numbers.append(at_most(f"trial/{label}/tried/two-merges-a-pass", *_two_at_once(members, merge)))
    return numbers


class _Watched(Evaluator):
    """An evaluator that counts the CPU seconds of its trunk and of its projection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.seconds: dict[str, float] = {"trunk": 0.0, "projection": 0.0}
        self.passes: list[dict[str, float]] = []
        super().__init__(*arguments, **named)

    def score(self, domains: Any = None) -> Any:
        """Score, and keep what this pass took."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        found = super().score(domains)
        self.passes.append(self.seconds)
        return found

    def least(self) -> dict[str, float]:
        """Return the pass that took least."""
        return min(self.passes, key=lambda each: sum(each.values()))

    def _batch_nats(self, tokens: torch.Tensor) -> torch.Tensor:
        started, trunk = time.process_time(), self.seconds["trunk"]
        found = super()._batch_nats(tokens)
        inside = self.seconds["trunk"] - trunk
        self.seconds["projection"] += time.process_time() - started - inside
        return found

    def _hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        started = time.process_time()
        found = super()._hidden(tokens)
        self.seconds["trunk"] += time.process_time() - started
        return found


def _merge(out: torch.Tensor, members: list[torch.Tensor], layout: Layout) -> None:
    names = [str(place) for place in range(len(members))]
    inputs = MergeInputs(members=members, layout=layout, identities=names)
    shares = [1 / len(members)] * len(members)
    run_method(merge_method("linear"), out, shares, inputs, threads=1)


def _two_at_once(members: list[torch.Tensor], one: float) -> tuple[float, str, None, str]:
    """Return the cost of a mixture when two are merged in one pass, over that of one alone."""
    size = members[0].numel()
    out, shares = torch.empty(2, size), torch.full((2, len(members)), 1 / len(members))

    def both() -> None:
        for start in range(0, size, SLICE):
            part = torch.stack([member[start : start + SLICE] for member in members])
            torch.mm(shares, part, out=out[:, start : start + SLICE])

    return _least(both) / 2 / one, "x", None, "a merge; taken: one at a time"


def _least(work: Callable[[], Any]) -> float:
    """Return the least CPU seconds of several calls, after one that is not counted."""
    best = float("inf")
    for turn in range(REPEATS + 1):
        started = time.process_time()
        work()
        if turn:
            best = min(best, time.process_time() - started)
    return best
