"""The pool in Ray's object store: each model once per node, mapped by its evaluators.

Members are made by Ray tasks, so a copy that is lost with a node is read again from its folder,
also while evaluators hold every CPU.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablate.cluster.room import bundle_of, room_by_node
from ablate.errors import RunError
from ablate.merge import Statistics
from ablate.models.checkpoint import load_flat
from ablate.models.layout import Layout
from ablate.models.pool import ModelPool
from ablate.progress import bar

Member = tuple[str, int]
SEED: Member = ("", -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Store:
    """Object references of a pool's flat float32 vectors [numel], by member; `root` its workspace.

    `names` are the units' fingerprints; `statistics[kind][member]` references of what a merge
    method asks of each member.
    """

    root: str
    references: Mapping[Member, Any]
    names: Mapping[Member, str]
    statistics: Mapping[Statistics, Mapping[Member, Any]] = field(default_factory=dict)

    def vectors(self, members: Sequence[Member]) -> list[np.ndarray]:
        """Return units' vectors, mapped from the store without a copy."""
        return list(ray.get([self.references[member] for member in members]))

    def seed(self) -> np.ndarray:
        """Return the seed's vector."""
        return self.vectors([SEED])[0]

    def units(self) -> dict[str, np.ndarray]:
        """Return every stored unit's vector by its fingerprint."""
        members = [member for member in self.references if member != SEED]
        names = [self.names[member] for member in members]
        return dict(zip(names, self.vectors(members), strict=True))

    def statistics_of(self, kind: Statistics, members: Sequence[Member]) -> list[Any]:
        """Return what a merge method asks of each of `members`."""
        return list(ray.get([self.statistics[kind][member] for member in members]))


def store_pool(pool: ModelPool, layout: Layout, root: Path, wanted: set[Member]) -> Store:
    """Return references to the seed's and the wanted units' vectors in the object store.

    Raises CheckpointError when a folder does not hold the model that the pool names.
    """
    shared = ray.put(layout)
    models: dict[Member, tuple[str, str]] = {
        (unit.partition, unit.index): (unit.folder, unit.digest) for unit in pool.units
    }
    models[SEED] = (pool.seed.folder, pool.seed.digest)
    asked = {
        member: (str(root / folder), shared, digest)
        for member, (folder, digest) in models.items()
        if member in wanted or member == SEED
    }
    references = made_by_tasks(_load, asked, "pool")
    names = {member: unit.fingerprint for member, unit in pool.by_member.items()}
    return Store(root=str(root), references=references, names=names)


def made_by_tasks(
    function: Callable[..., Any],
    asked: Mapping[Member, tuple[Any, ...]],
    label: str,
    *,
    gpus: int = 0,
) -> dict[Member, Any]:
    """Return references to `function(*asked[member])`, each by one Ray task that has ended.

    Each node runs as many at once as it has CPUs, and `gpus` for each of them. Raises what a task
    raises as it is, RunError for a task that is lost for good.
    """
    # The CPUs are counted here and not reserved in Ray. When a node takes the only copy of a result
    # with it, Ray runs the task again, and by then evaluators have reserved every CPU.
    task = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=3)(function)
    references: dict[Member, Any] = {}
    waiting, running = deque(asked), dict[Any, str]()
    with bar(label, len(asked)) as advance:
        while waiting or running:
            for node in _free_places(running.values(), gpus)[: len(waiting)]:
                member = waiting.popleft()
                # Soft: on a node that is lost the task would never run again.
                there = NodeAffinitySchedulingStrategy(node, soft=True)
                reference = task.options(scheduling_strategy=there).remote(*asked[member])
                references[member] = reference
                running[reference] = node
            ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5, fetch_local=False)
            for reference in ready:
                del running[reference]
            advance(len(references) - len(running), "")
            _raise_failure(ready)
    return references


def _free_places(taken: Iterable[str], gpus: int) -> list[str]:
    """Return the node of every task that may start now, nodes in turn, the emptiest first."""
    room = room_by_node(bundle_of(1, gpus))
    # All such nodes may have been lost: one task at a time then waits, or runs, where Ray says.
    room = room or {ray.get_runtime_context().get_node_id(): 1}
    used = Counter(taken)
    free = {node: count - used[node] for node, count in room.items()}
    turns = [(count - turn, node) for node, count in free.items() for turn in range(count)]
    return [node for _, node in sorted(turns, reverse=True)]


def _load(folder: str, layout: Layout, digest: str) -> np.ndarray:
    return load_flat(Path(folder), layout, digest=digest)


def _is_there(value: Any) -> bool:
    return value is not None


def _raise_failure(ready: list[Any]) -> None:
    """Raise what a task raised, without fetching its result to the driver."""
    if not ready:
        return
    try:
        ray.get(ray.remote(num_cpus=0)(_is_there).remote(ready[0]))
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise RunError(f"a model could not be held in the object store: {error}") from error
