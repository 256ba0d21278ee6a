"""The pool in Ray's object store: each model once per node, mapped by its evaluators.

Members are made by Ray tasks, so a copy that is lost with a node is read again from its folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from ablate.errors import RunError
from ablate.models.checkpoint import load_flat
from ablate.models.layout import Layout
from ablate.models.pool import ModelPool
from ablate.progress import bar

SEED = ("", -1)
Member = tuple[str, int]


def store_pool(
    pool: ModelPool, layout: Layout, root: Path, wanted: set[Member]
) -> dict[Member, Any]:
    """Return object references of flat float32 vectors, by member; the seed is `SEED`.

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
        if member in wanted
    }
    waiting = list(references.values())
    with bar("pool", len(waiting)) as advance:
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=0.5, fetch_local=False)
            advance(len(references) - len(waiting), "")
            _raise_failure(ready)
    return references


def _load(folder: str, layout: Layout, digest: str) -> np.ndarray:
    return load_flat(Path(folder), layout, digest=digest)


def _size(array: np.ndarray) -> int:
    return int(array.nbytes)


def _raise_failure(ready: list[Any]) -> None:
    """Raise what a load task raised, without fetching its array to the driver."""
    if not ready:
        return
    try:
        ray.get(ray.remote(num_cpus=0)(_size).remote(ready[0]))
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise RunError(f"a model could not be held in the object store: {error}") from error
