"""Room for the work: how much of it the connected cluster holds, and waiting for nodes to join."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources

from ablate.errors import RunError, StudyError
from ablate.progress import note
from ablate.resources import Cluster

Bundle = Mapping[str, float]
LOOK_SECONDS = 1.0
WATCH_SECONDS = 5.0
PATIENCE_SECONDS = 60.0


def bundle_of(cpus: float, gpus: float = 0.0) -> dict[str, float]:
    """Return what one process asks of Ray."""
    return {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}


def room_for(bundle: Bundle) -> int:
    """Return how many such bundles the nodes of the connected cluster hold, all at once."""
    return sum(room_by_node(bundle).values())


def room_by_node(bundle: Bundle) -> dict[str, int]:
    """Return how many such bundles each node holds, by its id; nodes that hold none are left out."""
    found: dict[str, int] = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            fits = min(there.get(kind, 0.0) / amount for kind, amount in bundle.items())
            found[node["NodeID"]] = int(fits + 1e-9)
    return {node: count for node, count in found.items() if count}


def require_room(what: str, bundle: Bundle, count: int, minutes: float, remedy: str) -> None:
    """Wait until the cluster holds `count` bundles for `what`; a note says what is waited for.

    Raises StudyError when it does not after `minutes`: at once for 0.
    """
    held = room_for(bundle)
    if held >= count:
        return
    end = time.monotonic() + 60 * minutes
    with asked_for(bundle, count if minutes else 0):
        if minutes:
            note(f"waiting for nodes, {minutes:g} min at most: {_shortage(what, bundle, held)}")
        while held < count:
            if time.monotonic() >= end:
                raise StudyError(
                    f"the cluster must hold {_shortage(what, bundle, held)}; {remedy}, or set "
                    "wait_minutes there where nodes join by themselves"
                )
            time.sleep(LOOK_SECONDS)
            held = room_for(bundle)


class Shortage:
    """Watches whether the cluster still holds one `what`, of `count` bundles, once work began."""

    def __init__(self, what: str, bundle: Bundle, count: int, cluster: Cluster) -> None:
        self._what, self._bundle, self._count = what, bundle, count
        self._patience = max(PATIENCE_SECONDS, 60 * cluster.wait_minutes)
        self._looked = -WATCH_SECONDS
        self._since: float | None = None

    def look(self) -> int | None:
        """Return how many the cluster holds; None where it was looked at a moment ago.

        Raises RunError when it has held none for as long as `wait_minutes` says, a minute at least.
        """
        now = time.monotonic()
        if now - self._looked < WATCH_SECONDS:
            return None
        self._looked = now
        fit = room_for(self._bundle) // self._count
        if fit:
            self._since = None
            return fit
        if self._since is None:
            self._since = now
            note(
                f"nodes were lost: no {self._what} fits; waiting {self._patience:.0f} s for others"
            )
        if now - self._since > self._patience:
            raise RunError(
                f"the cluster must have room for one {self._what}, got none for "
                f"{self._patience:.0f} s after nodes were lost; what is done is kept: run it "
                "again, or raise wait_minutes in the cluster file"
            )
        return fit


def require_evaluator(cluster: Cluster) -> None:
    """Wait until the cluster holds one evaluator; raise StudyError when it does not in time."""
    trial = cluster.trial
    bundle = bundle_of(trial.cpus, trial.gpus)
    require_room("an evaluator", bundle, 1, cluster.wait_minutes, "lower trial in the cluster file")


def evaluators_at_once(cluster: Cluster) -> int:
    """Return how many evaluators the connected cluster holds at once, one at least."""
    trial = cluster.trial
    held = room_for(bundle_of(trial.cpus, trial.gpus))
    return max(1, min(held, trial.concurrent or held))


def _shortage(what: str, bundle: Bundle, held: int) -> str:
    size = " and ".join(f"{amount:g} {kind}s" for kind, amount in bundle.items())
    return f"{what} of {size}, got room for {held}"


@contextmanager
def asked_for(bundle: Bundle, count: int) -> Iterator[None]:
    """Ask Ray's autoscaler for nodes that hold `count` bundles, where there is one, until the end.

    Nothing is asked for when `count` is 0.
    """
    if count:
        request_resources(bundles=[dict(bundle)] * count)
    try:
        yield
    finally:
        if count:
            request_resources(bundles=[])
