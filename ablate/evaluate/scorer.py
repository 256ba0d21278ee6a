"""Score merges: one model whose live parameters are overwritten by each merge in turn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ablate.evaluate.blocks import Domain
from ablate.evaluate.device import evaluation_dtype, pick_device
from ablate.evaluate.likelihood import Evaluator
from ablate.evaluate.statistics import DomainScore
from ablate.merge import resolve_method
from ablate.models.layout import bind, layout_of
from ablate.models.load import load_model


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """Where the seed's folder is and how to score; plain values that cross process borders."""

    seed_folder: str
    trust_remote_code: bool
    length: int
    precision: str
    batch_tokens: int | None
    threads: int
    gpus: float


@dataclass(frozen=True, kw_only=True)
class MergeScore:
    """Scores of one merge, `scores[domain]`, and where its time went in seconds."""

    scores: dict[str, DomainScore]
    merge_seconds: float
    evaluate_seconds: float


class Scorer:
    """An evaluation model and its tokens, kept between merges."""

    def __init__(self, settings: ScorerSettings, domains: Sequence[Domain]) -> None:
        torch.set_num_threads(settings.threads)
        self._threads = settings.threads
        self._device = pick_device(settings.gpus)
        model = load_model(Path(settings.seed_folder), trust_remote_code=settings.trust_remote_code)
        self.layout = layout_of(model)
        self._flat = bind(
            model, self.layout, evaluation_dtype(settings.precision, self._device), self._device
        )
        self._evaluator = Evaluator(
            model, domains, length=settings.length, batch_tokens=settings.batch_tokens
        )

    def score(
        self,
        method: str,
        members: Sequence[np.ndarray],
        weights: Sequence[float],
        domains: Sequence[str],
    ) -> MergeScore:
        """Return the scores of `method(members, weights)` on the named domains.

        `members` are flat float32 vectors of the pool's layout, in sorted order.
        """
        merge = resolve_method(method)
        started = time.perf_counter()
        merge(self._flat, [_tensor(m) for m in members], list(weights), threads=self._threads)
        self._wait()
        merged = time.perf_counter()
        scores = self._evaluator.score(domains)
        self._wait()
        return MergeScore(
            scores=scores,
            merge_seconds=merged - started,
            evaluate_seconds=time.perf_counter() - merged,
        )

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Return a view of an array in the object store; it is read-only, and merges only read it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
