"""The pool in Ray's object store: each model once per node, mapped by its evaluators.

Members are made by Ray tasks, so a copy that is lost with a node is read again from its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

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
    load = ray.remote(num_cpus=1, max_retries=3)(_load)
    shared = ray.put(layout)
    models: dict[Member, tuple[str, str]] = {
        (unit.partition, unit.index): (unit.folder, unit.digest) for unit in pool.units
    }
    models[SEED] = (pool.seed.folder, pool.seed.digest)
    references = {
        member: load.remote(str(root / folder), shared, digest)
        for member, (folder, digest) in models.items()
        if member in wanted or member == SEED
    }
    wait_for(list(references.values()), "pool")
    names = {member: unit.fingerprint for member, unit in pool.by_member.items()}
    return Store(root=str(root), references=references, names=names)


def wait_for(references: list[Any], label: str) -> None:
    """Wait until every task of `references` has ended; raise the first one's error as it is."""
    waiting = list(references)
    with bar(label, len(waiting)) as advance:
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=0.5, fetch_local=False)
            advance(len(references) - len(waiting), "")
            _raise_failure(ready)


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
