"""Simulate a search at scale: whole units against layer slices. Every input is an option.

`python simulate.py` prints the tables of the README; `python simulate.py --members 32 --nodes 64`
changes what they follow from.
"""

from __future__ import annotations

import argparse
import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from scale import (
    Inputs,
    break_even_tokens,
    compute_seconds,
    merge_seconds,
    sliced_bytes,
    sliced_limit,
    sliced_memory,
    sliced_reload,
    whole_unit_limit,
    whole_unit_memory,
    whole_unit_reload,
)

WARM_SHARE = 0.25
"""Of the simulated time: caches fill and pipelines too; it does not count."""
PIPELINED_TRIALS = 8
"""After so many trials a pipeline of constant services has its rhythm."""
FAILURE_HOURS, FAILURE_TOKENS = 2.0, 8_388_608


@dataclass(frozen=True, kw_only=True)
class Result:
    """A simulated search: trials an hour, bytes between nodes per finished trial, trials lost."""

    trials_per_hour: float
    bytes_per_trial: float
    lost: int


def losses(one: Inputs, hours: float, rng: np.random.Generator) -> Iterator[tuple[float, int]]:
    """Yield (seconds, node) of nodes that vanish, in order of time."""
    rate = one.lost_per_hour * one.nodes / 3600
    at = 0.0
    while rate:
        at += rng.exponential(1 / rate)
        if at > hours * 3600:
            return
        yield at, int(rng.integers(one.nodes))


@dataclass
class _Trial:
    """A trial of whole units on its way: it is merged when `missing` members have come."""

    gpu: int
    life: int
    ready: float
    missing: int = 0


class _WholeUnits:
    """Evaluators that copy the members they lack, merge them, and evaluate.

    A node sends one unit after another, in the order asked for, and takes them one at a time too,
    in the order in which they leave. With `prefetch` an evaluator asks for its next trial's
    members when it begins to merge.
    """

    def __init__(self, one: Inputs, rng: np.random.Generator, *, prefetch: bool) -> None:
        self._one, self._rng, self._prefetch = one, rng, prefetch
        self._busy = merge_seconds(one) + compute_seconds(one) + one.ceremony
        self._into, self._out_of = [0.0] * int(one.nodes), [0.0] * int(one.nodes)
        # unit -> when it came, or the trials that wait for it; the least recently used comes first
        self._copies: list[OrderedDict[int, float | list[_Trial]]] = [
            OrderedDict() for _ in self._into
        ]
        self._there = [0] * len(self._into)
        self._back, self._lives = [0.0] * int(one.nodes), [0] * int(one.nodes)
        self._free = [0.0] * int(one.nodes * one.gpus)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self.finished: list[float] = []
        self.sent: list[float] = []
        self.lost = 0

    def run(self, end: float, losses: Iterator[tuple[float, int]]) -> None:
        """Simulate to `end`, in seconds."""
        # They begin spread over a trial's time, as they are later on.
        for gpu, begin in enumerate(self._rng.uniform(0, self._busy, len(self._free))):
            self._at(float(begin), partial(self._ask, gpu, 0))
        for at, node in losses:
            self._at(at, partial(self._lose, node))
        while self._events and self._events[0][0] < end:
            now, _, act = heapq.heappop(self._events)
            act(now)

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, act))

    def _ask(self, gpu: int, life: int, now: float) -> None:
        node = gpu // int(self._one.gpus)
        if life != self._lives[node]:
            return
        trial = _Trial(gpu=gpu, life=life, ready=now)
        members = self._rng.choice(int(self._one.units), int(self._one.members), replace=False)
        for unit in members.tolist():
            self._want(trial, node, unit, now)
        if not trial.missing:
            self._begin(trial)

    def _want(self, trial: _Trial, node: int, unit: int, now: float) -> None:
        home, copies = unit % int(self._one.nodes), self._copies[node]
        if home == node:
            return
        there = copies.get(unit)
        if isinstance(there, float):
            copies.move_to_end(unit)
            return
        trial.missing += 1
        if there is not None:
            there.append(trial)
            return
        copies[unit] = [trial]
        seconds = self._one.unit / self._one.network
        if self._back[home] > now:  # its home is lost: from the shared storage
            seconds, leaves = self._one.unit / (self._one.storage_gb * 1e9), now
        else:
            leaves = max(now, self._out_of[home])
            self._out_of[home] = leaves + seconds
            self.sent.append(leaves)
        self._at(leaves, partial(self._take, node, unit, seconds, self._lives[node]))

    def _take(self, node: int, unit: int, seconds: float, life: int, now: float) -> None:
        """A unit leaves its home: it comes when the node has taken those before it."""
        if life == self._lives[node]:
            self._into[node] = max(now, self._into[node]) + seconds
            self._at(self._into[node], partial(self._come, node, unit, life))

    def _come(self, node: int, unit: int, life: int, now: float) -> None:
        if life != self._lives[node]:
            return
        copies = self._copies[node]
        waiting = copies.pop(unit)
        assert isinstance(waiting, list)
        for trial in waiting:
            trial.missing -= 1
            trial.ready = now
            if not trial.missing:
                self._begin(trial)
        copies[unit] = now
        self._there[node] += 1
        while self._there[node] > self._one.cached_units:
            del copies[next(name for name, when in copies.items() if isinstance(when, float))]
            self._there[node] -= 1

    def _begin(self, trial: _Trial) -> None:
        start = max(trial.ready, self._free[trial.gpu])
        self._free[trial.gpu] = start + self._busy
        ask = start if self._prefetch else start + self._busy
        self._at(start + self._busy, partial(self._finish, trial))
        self._at(ask, partial(self._ask, trial.gpu, trial.life))

    def _finish(self, trial: _Trial, now: float) -> None:
        if trial.life == self._lives[trial.gpu // int(self._one.gpus)]:
            self.finished.append(now)

    def _lose(self, node: int, now: float) -> None:
        """Empty a node; its evaluators start again on the one that replaces it."""
        back = now + whole_unit_reload(self._one)
        self._lives[node] += 1
        self._back[node], self._into[node], self._out_of[node] = back, back, back
        self._copies[node].clear()
        self._there[node] = 0
        gpus = int(self._one.gpus)
        for gpu in range(node * gpus, (node + 1) * gpus):
            self.lost += self._free[gpu] > now
            self._free[gpu] = back
            self._at(back, partial(self._ask, gpu, self._lives[node]))


def whole_units(one: Inputs, hours: float, seed: int = 0, *, prefetch: bool = False) -> Result:
    """Simulate evaluators of whole units, each a GPU, for so many hours."""
    rng, end = np.random.default_rng(seed), hours * 3600
    search = _WholeUnits(one, rng, prefetch=prefetch)
    search.run(end, losses(one, hours, rng))
    warm = WARM_SHARE * end
    counted = sum(warm <= done < end for done in search.finished)
    return Result(
        trials_per_hour=counted / ((end - warm) / 3600),
        bytes_per_trial=one.unit * sum(warm <= at < end for at in search.sent) / max(1, counted),
        lost=search.lost,
    )


def sliced(one: Inputs, hours: float, seed: int = 0) -> Result:
    """Simulate groups whose GPUs hold a slice of every unit, for so many hours."""
    rng = np.random.default_rng(seed)
    end, warm = hours * 3600, WARM_SHARE * hours * 3600
    first, period = rhythm(one)
    by_group: list[list[float]] = [[] for _ in range(one.groups)]
    for at, node in losses(one, hours, rng):
        if node // one.nodes_per_group < one.groups:
            by_group[node // one.nodes_per_group].append(at)
    counted = lost = 0
    for of in by_group:
        begin = 0.0
        for at in [*of, end]:
            if at > begin:
                done = np.arange(begin + first, at, period)
                counted += int(np.sum(done >= warm))
                begun = int((at - begin) / period) + 1
                lost += begun - done.size if at < end else 0
            begin = max(begin, at + sliced_reload(one))
    return Result(
        trials_per_hour=counted / ((end - warm) / 3600),
        bytes_per_trial=sliced_bytes(one),
        lost=lost,
    )


def rhythm(one: Inputs) -> tuple[float, float]:
    """Return when a group's first trial ends, and the time between two ends later on, in seconds.

    GPUs and the links between them are servers in a row; each takes one micro batch at a time, in
    order, and a GPU merges its slice before the first one of a trial.
    """
    passes = max(1, round(one.tokens / one.micro_tokens))
    micro = one.tokens / passes * one.width * one.activation_bytes
    merge, work = merge_seconds(one) / one.stages, compute_seconds(one) / one.stages / passes
    hops = [
        micro / (one.network if (stage + 1) % one.gpus == 0 else one.nvlink_gb * 1e9)
        for stage in range(one.stages - 1)
    ]
    gpus, links = [0.0] * one.stages, [0.0] * (one.stages - 1)
    ends = []
    for _ in range(PIPELINED_TRIALS):
        gpus = [free + merge for free in gpus]
        for _ in range(passes):
            at = 0.0
            for stage in range(one.stages):
                at = gpus[stage] = max(at, gpus[stage]) + work
                if stage < one.stages - 1:
                    at = links[stage] = max(at, links[stage]) + hops[stage]
        ends.append(gpus[-1])
    return ends[0], ends[-1] - ends[-2]


def whole_hours(one: Inputs) -> float:
    """Return hours in which every evaluator of whole units does about four trials."""
    return 4 * one.nodes * one.gpus / whole_unit_limit(one)


def sliced_hours(one: Inputs) -> float:
    """Return hours in which a group does many trials, beside which its filling is short."""
    return 200 * one.groups / sliced_limit(one)


def table(one: Inputs) -> None:
    """Print both designs for several mixtures and evaluations."""
    print(f"{one.units:.0f} units of {one.unit / 1e9:.1f} GB ({one.pool / 1e12:.1f} TB) on "
          f"{one.nodes:.0f} nodes of {one.gpus:.0f} GPUs")  # fmt: skip
    print(f"memory of a node: whole units {whole_unit_memory(one) / 1e9:,.0f} GB ("
          f"{one.pool / one.nodes / 1e9:,.0f} own, {one.cached_units} copies),\nslices "
          f"{sliced_memory(one) / 1e9:,.0f} GB ({one.groups} groups of {one.nodes_per_group} "
          f"nodes); a node has {one.node_memory_gb:,.0f} GB")  # fmt: skip
    print("\n           GB between nodes   trials/h, simulated            of limit    even")
    print("members tokens  whole slices     whole +prefetch     slices whole slices     at")
    for members in (2, 8, 32):
        for tokens in (65_536, 1_048_576, 8_388_608):
            row(replace(one, members=members, tokens=tokens))


def row(one: Inputs) -> None:
    """Print one mixture size and evaluation."""
    hours = whole_hours(one)
    whole, ahead = whole_units(one, hours), whole_units(one, hours, prefetch=True)
    parts = sliced(one, sliced_hours(one))
    print(
        f"{one.members:>7.0f} {one.tokens / 1e3:>5,.0f}k {whole.bytes_per_trial / 1e9:>6.1f} "
        f"{parts.bytes_per_trial / 1e9:>6.1f} {whole.trials_per_hour:>9,.0f} "
        f"{ahead.trials_per_hour:>9,.0f} {parts.trials_per_hour:>10,.0f} "
        f"{ahead.trials_per_hour / whole_unit_limit(one, ahead.bytes_per_trial):>5.0%} "
        f"{parts.trials_per_hour / sliced_limit(one):>6.0%} {break_even_tokens(one) / 1e6:>5.1f}M"
    )


def failures(one: Inputs) -> None:
    """Print what nodes that vanish cost each design."""
    print("\nnodes that vanish: replaced after "
          f"{whole_unit_reload(one):.0f} s (whole units), {sliced_reload(one):.0f} s (slices)")  # fmt: skip
    print("per node and hour   whole trials/h (lost)   slices trials/h (lost)")
    for rate in (0.0, 0.02, 0.1, 0.5):
        now = replace(one, lost_per_hour=rate, tokens=FAILURE_TOKENS)
        whole, parts = whole_units(now, FAILURE_HOURS, prefetch=True), sliced(now, FAILURE_HOURS)
        print(f"{rate:>17.2f} {whole.trials_per_hour:>16,.0f} ({whole.lost:,}) "
              f"{parts.trials_per_hour:>17,.0f} ({parts.lost:,})")  # fmt: skip


def main() -> None:
    """Read the options and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for one in fields(Inputs):
        name = "--" + one.name.replace("_", "-")
        parser.add_argument(name, type=float, default=one.default, help=one.metadata["help"])
    inputs = Inputs(**vars(parser.parse_args()))
    if sliced_memory(inputs) > inputs.node_memory_gb * 1e9:
        parser.error(
            f"slices must fit a node's memory, got {sliced_memory(inputs) / 1e9:,.0f} GB; lower "
            "--units or --weight-bytes"
        )
    table(inputs)
    failures(inputs)


if __name__ == "__main__":
    main()
