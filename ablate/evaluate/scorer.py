"""Score merges: one model whose live parameters are overwritten by each merge in turn."""

from __future__ import annotations

import time
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.evaluate.blocks import Domain
from ablate.evaluate.device import evaluation_dtype, pick_device
from ablate.evaluate.likelihood import Evaluator
from ablate.evaluate.slope import Slope, products
from ablate.evaluate.statistics import DomainScore
from ablate.merge import (
    MergeInputs,
    Method,
    OptionValue,
    merge_method,
    prepare_member,
    prepare_options,
    run_method,
)
from ablate.models.layout import Layout, bind, layout_of
from ablate.models.load import load_model

PREPARED_BYTES = 2 << 30  # of what a method prepares of members, kept between merges
GRADIENT_BYTES = 1 << 30  # of gradients held at once, so that units are read once for all of them

Slopes = dict[str, dict[str, float]]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Merge:
    """A merge to be made. Vectors are flat float32 of the pool's layout, members in sorted order.

    `identities` are the members' fingerprints; `statistics` what the method asks of each member.
    """

    method: str
    members: Sequence[np.ndarray]
    weights: Sequence[float]
    identities: Sequence[str]
    seed: np.ndarray | None = None
    statistics: Sequence[Any] | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class MergeScore:
    """Scores of one merge, `scores[domain]`, and where its time went in seconds.

    `token_nats[domain]` [tokens] are there when they were asked for, `slopes[domain][unit]` too:
    the derivative of the domain's loss along that unit's delta, nats per token.
    """

    scores: dict[str, DomainScore]
    merge_seconds: float
    evaluate_seconds: float
    token_nats: dict[str, np.ndarray] = field(default_factory=dict)
    slopes: Slopes = field(default_factory=dict)


class Scorer:
    """An evaluation model and its tokens, kept between merges."""

    def __init__(self, settings: ScorerSettings, domains: Sequence[Domain]) -> None:
        torch.set_num_threads(settings.threads)
        self._threads = settings.threads
        self._device = pick_device(settings.gpus)
        self._model = load_model(
            Path(settings.seed_folder), trust_remote_code=settings.trust_remote_code
        )
        self.layout = layout_of(self._model)
        self._flat = bind(
            self._model,
            self.layout,
            evaluation_dtype(settings.precision, self._device),
            self._device,
        )
        self._evaluator = Evaluator(
            self._model, domains, length=settings.length, batch_tokens=settings.batch_tokens
        )
        self._slope: Slope | None = None
        self._prepared: OrderedDict[Any, Any] = OrderedDict()

    def score(
        self, merge: Merge, domains: Sequence[str], *, keep_tokens: bool = False
    ) -> MergeScore:
        """Return the scores of a merge on the named domains, with every token's nats if asked."""
        seconds = self.merge(merge)
        started = time.perf_counter()
        nats = self._evaluator.token_nats(domains) if keep_tokens else {}
        scores = (
            self._evaluator.score_tokens(nats) if keep_tokens else self._evaluator.score(domains)
        )
        self._wait()
        return MergeScore(
            scores=scores,
            merge_seconds=seconds,
            evaluate_seconds=time.perf_counter() - started,
            token_nats=nats,
        )

    @property
    def evaluator(self) -> Evaluator:
        """Return what scores the live model, the merge made last."""
        return self._evaluator

    def merge(self, merge: Merge) -> float:
        """Write a merge into the live model and return the seconds it took."""
        method = merge_method(merge.method)
        started = time.perf_counter()
        run_method(
            method,
            self._flat,
            list(merge.weights),
            self._with_prepared(method, merge, merge_inputs(merge, self.layout)),
            options=merge.options,
            threads=self._threads,
        )
        self._wait()
        return time.perf_counter() - started

    def slopes(
        self, units: Mapping[str, np.ndarray], seed: np.ndarray, domains: Sequence[str]
    ) -> Slopes:
        """Return d loss[domain] / d weight[unit] at the live model, nats per token.

        `units` and `seed` are flat vectors; the live model is the merge made last.
        """
        at_once = min(len(domains), max(1, GRADIENT_BYTES // self._flat.nbytes))
        if self._slope is None or len(self._slope.gradients) < at_once:
            self._slope = Slope(self._model, self.layout, self._flat, at_once)
        found: Slopes = {}
        members, start = [read_only(vector) for vector in units.values()], read_only(seed)
        for first in range(0, len(domains), at_once):
            names = domains[first : first + at_once]
            tokens = [self._gradient(self._slope, name, i) for i, name in enumerate(names)]
            along = products(self._slope.gradients[: len(names)], members, start)
            along /= torch.tensor(tokens, dtype=torch.float64)
            for name, column in zip(names, along.T.tolist(), strict=True):
                found[name] = dict(zip(units, column, strict=True))
        return found

    def _gradient(self, slope: Slope, domain: str, place: int) -> int:
        """Make d(summed nats of a domain)/d(parameters); return the domain's scored tokens."""
        while True:
            batches = self._evaluator.batches(domain)
            try:
                slope.of_loss(batches, place)
            except RuntimeError as error:
                self._evaluator.halve(batches[0].shape[1], error)
            else:
                return sum(batch.shape[0] * (batch.shape[1] - 1) for batch in batches)

    def _with_prepared(self, method: Method, merge: Merge, inputs: MergeInputs) -> MergeInputs:
        """Return the inputs with what the method prepares of each member, kept for next time."""
        if method.prepare is None:
            return inputs
        options = tuple(sorted(prepare_options(method, merge.options).items()))
        prepared: list[Any] = []
        for place, identity in enumerate(merge.identities):
            key = (merge.method, identity, options)
            if key not in self._prepared:
                self._prepared[key] = prepare_member(method, inputs, place, options=merge.options)
            self._prepared.move_to_end(key)
            prepared.append(self._prepared[key])
            if _bytes_of(prepared[0]) * len(merge.identities) > PREPARED_BYTES:
                self._prepared.clear()
                return inputs  # the method makes them one by one, and keeps none
        while _bytes_of(list(self._prepared.values())) > PREPARED_BYTES:
            self._prepared.popitem(last=False)
        return MergeInputs(**{**vars(inputs), "prepared": prepared})

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _bytes_of(prepared: Any) -> int:
    """Return the bytes of the tensors and arrays in what a method prepared."""
    if isinstance(prepared, Mapping):
        return sum(map(_bytes_of, prepared.values()))
    if isinstance(prepared, list | tuple):
        return sum(map(_bytes_of, prepared))
    return int(getattr(prepared, "nbytes", 0))


def merge_inputs(merge: Merge, layout: Layout) -> MergeInputs:
    """Return a merge's vectors as tensors, without copying them."""
    return MergeInputs(
        members=[read_only(member) for member in merge.members],
        seed=None if merge.seed is None else read_only(merge.seed),
        layout=layout,
        identities=merge.identities,
        statistics=merge.statistics,
    )


def read_only(array: np.ndarray) -> torch.Tensor:
    """Return a view of an array in the object store; it is read-only, and merges only read it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
