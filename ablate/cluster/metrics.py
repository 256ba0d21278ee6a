"""What Ray's dashboard and Prometheus show of a running stage, through `ray.util.metrics`.

The driver sets them where the numbers pass anyway, some microseconds each. Prometheus prefixes
every name with `ray_` and ends counters in `_total`. Where no Ray agent runs they go nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from ablate.cluster.pool import Store
from ablate.cluster.queue import Snapshot
from ablate.cluster.room import evaluators_at_once
from ablate.progress import heard_by
from ablate.resources import Cluster

WINDOW_SECONDS = 2.0
SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class _Rate:
    """A gauge of an amount per second, over windows of `WINDOW_SECONDS` or more."""

    def __init__(self, gauge: Gauge, tags: dict[str, str] | None = None) -> None:
        self._gauge, self._tags = gauge, tags
        self._since, self._sum = time.monotonic(), 0.0

    def add(self, amount: float) -> None:
        now = time.monotonic()
        self._sum += amount
        if now - self._since >= WINDOW_SECONDS:
            self._gauge.set(self._sum / (now - self._since), self._tags)
            self._since, self._sum = now, 0.0

    def end(self) -> None:
        self._gauge.set(0.0, self._tags)


class TrainingMeter:
    """Tokens that each lane trains, and where the runs stand."""

    def __init__(self) -> None:
        self._tokens = Counter(
            "ablate_trained_tokens", "Tokens trained, by lane (worker group).", ("lane",)
        )
        self._speed = Gauge(
            "ablate_training_tokens_per_second", "Tokens per second, by lane.", ("lane",)
        )
        self._runs = Gauge(
            "ablate_training_runs", "Training runs of this call, by state.", ("state",)
        )
        self._seen: dict[int, int] = {}
        self._rates: dict[int, _Rate] = {}

    def see(self, now: Snapshot) -> None:
        """Take the queue's present word."""
        for lane, tokens in now.lane_tokens.items():
            tags = {"lane": str(lane)}
            rate = self._rates.setdefault(lane, _Rate(self._speed, tags))
            more = tokens - self._seen.get(lane, 0)
            self._seen[lane] = tokens
            if more:
                self._tokens.inc(more, tags)
            rate.add(more)
            if not now.unfinished:
                rate.end()
        states = {
            "finished": now.finished,
            "running": len(now.running),
            "waiting": now.waiting,
            "failed": len(now.failures),
        }
        for state, count in states.items():
            self._runs.set(count, {"state": state})


class TrialMeter:
    """Trials, merges and evaluations: a listener of the event `trial`.

    `models` flat vectors of `model_bytes` each lie in the object store, and `evaluators` map them.
    """

    def __init__(self, *, models: int, model_bytes: int, evaluators: int) -> None:
        self._trials = Counter(
            "ablate_trials", "Trials that ended: scored, stopped by a race, failed.", ("outcome",)
        )
        self._rate = _Rate(Gauge("ablate_trials_per_second", "Trials that end in a second."))
        self._merging = Histogram("ablate_merge_seconds", "Seconds of one merge.", SECONDS)
        self._evaluating = Histogram(
            "ablate_evaluate_seconds", "Seconds of one evaluation.", SECONDS
        )
        self._bandwidth = Gauge(
            "ablate_merge_gigabytes_per_second",
            "(members + 1) x model bytes / seconds of the last merge, 10^9 bytes.",
        )
        self._tokens = Counter("ablate_evaluated_tokens", "Tokens evaluated.")
        self._speed = Gauge(
            "ablate_evaluated_tokens_per_second",
            "Tokens per second of one evaluator in the last evaluation.",
        )
        self._pool = Gauge("ablate_pool_bytes", "Bytes of models in the object store, per node.")
        self._evaluators = Gauge("ablate_evaluators", "Evaluators that fit at once.")
        self._model_bytes = model_bytes
        self._pool.set(models * model_bytes)
        self._evaluators.set(evaluators)

    def __call__(self, stage: str | None, event: str, values: Mapping[str, Any]) -> None:
        """Take a trial that ended."""
        if event != "trial":
            return
        failed, stopped = values["error"] is not None, values["estimate"] is not None
        outcome = "failed" if failed else "stopped" if stopped else "scored"
        self._trials.inc(1, {"outcome": outcome})
        self._rate.add(1)
        merge, evaluate = values["merge_seconds"], values["evaluate_seconds"]
        tokens = values["evaluated_tokens"]
        if merge > 0:
            self._merging.observe(merge)
            moved = (values["members"] + 1) * self._model_bytes
            self._bandwidth.set(moved / merge / 1e9)
        if evaluate > 0 and tokens:
            self._evaluating.observe(evaluate)
            self._tokens.inc(tokens)
            self._speed.set(tokens / evaluate)

    def end(self) -> None:
        """Show that no trial runs and no model is held any more."""
        self._rate.end()
        self._pool.set(0)
        self._evaluators.set(0)


@contextmanager
def trials_metered(store: Store, model_bytes: int, cluster: Cluster) -> Iterator[None]:
    """Show the trials that are told of in the block, and what they run on."""
    meter = TrialMeter(
        models=len(store.references),
        model_bytes=model_bytes,
        evaluators=evaluators_at_once(cluster),
    )
    try:
        with heard_by(meter):
            yield
    finally:
        meter.end()
