"""Ray's life time, and plain functions spread over Ray tasks."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from ablate.cluster.job_address import AUTH_MODE, token_mode
from ablate.cluster.room import bundle_of, require_room
from ablate.errors import RunError, StudyError
from ablate.interrupts import apart, held
from ablate.progress import bar
from ablate.resources import Cluster

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new reporter prints errors on standard output at any verbosity
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


# Ray on loopback for this process only: a token would be written into the home folder. A cluster
# that runs already is joined as Ray itself would join it: RAY_AUTH_MODE=token where it asks for one.
# Its workers have the driver's own priority (`nice ablate ...` lowers both): with Ray's 15 they starve
# beside anything else that the machine does.
OWN_RAY = {AUTH_MODE: "disabled", "RAY_worker_niceness": "0"}


HEART = ("gcs_server", "raylet")  # the processes without which Ray answers nothing


@dataclass
class _Held:
    """How many callers want a connection kept, and whether this process opened it."""

    keepers: int = 0
    opened: bool = False


_held = _Held()


@contextmanager
def kept_session() -> Iterator[None]:
    """Keep a connection that is opened inside until the end; none is opened here.

    A verb holds this around its stages: Ray starts once when it is needed, and not at all when
    there is nothing to do.
    """
    _held.keepers += 1
    try:
        yield
    finally:
        _held.keepers -= 1
        _close_unless_held()


@contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """Hold a connection to Ray as `cluster` says; one that is already there is used as it is.

    Raises StudyError when the address cannot be reached.
    """
    if not ray.is_initialized():
        own = OWN_RAY if cluster.address is None else {}
        for name, value in {**ENVIRONMENT, **own}.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings(), held():
            warnings.simplefilter("ignore")
            _connect(cluster)
            _held.opened = True
    with kept_session():
        yield


def own_ray_died() -> bool:
    """Return whether the Ray that this process started has ended by itself.

    What stops a whole service (systemd, Slurm's control groups) ends Ray beside its driver: no
    answer comes from it any more, and after a minute Ray ends the driver too, in its own way.
    """
    node = ray._private.worker._global_node
    if not _held.opened or node is None:
        return False
    return any(kind in HEART for kind, _ in node.dead_processes())


def _close_unless_held() -> None:
    if _held.keepers == 0 and _held.opened:
        _held.opened = False
        ray.shutdown()


def _connect(cluster: Cluster) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        store = cluster.object_store_gb
        with apart():
            ray.init(
                address="local",
                num_cpus=cluster.cpus,
                num_gpus=cluster.gpus,
                object_store_memory=None if store is None else int(store * 1e9),
                include_dashboard=False,
                **quiet,
            )
        return
    try:
        ray.init(address=cluster.address, **quiet)
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        remedy = f"set {AUTH_MODE}=token if it asks for a token"
        if token_mode():
            remedy = "check its token"
        raise StudyError(
            f"address must be a Ray cluster that can be reached, got {cluster.address}: {error}; "
            f"start one with `ray start --head`, {remedy}, or leave address out"
        ) from error


@contextmanager
def scratch_folder(cluster: Cluster) -> Iterator[Path]:
    """Yield a folder for what Ray Train and Ray Tune store, removed at the end."""
    if cluster.scratch is not None:
        Path(cluster.scratch).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ablate-", dir=cluster.scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class TaskMap:
    """Run a function over items as Ray tasks; results come in the order of the items."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __call__(
        self,
        function: Callable[[Item, Shared], Result],
        items: Sequence[Item],
        shared: Shared,
        label: str,
    ) -> list[Result]:
        """Return `[function(item, shared) for item in items]`; `shared` is sent once per node.

        Errors that the function raises on purpose are raised here as they are; a lost worker is
        tried again, and becomes a RunError when that does not help.
        """
        if not items:
            return []
        with session(self._cluster):
            cpus = self._cluster.prepare.cpus
            require_room(
                "a task of prepare.cpus",
                bundle_of(cpus),
                1,
                self._cluster.wait_minutes,
                "lower it in the cluster file",
            )
            task = ray.remote(num_cpus=cpus, max_retries=3)(_call)
            handle, code = ray.put(shared), ray.put(function)
            references = [task.remote(code, item, handle) for item in items]
            waiting = list(references)
            with bar(label, len(items)) as advance:
                while waiting:
                    ready, waiting = ray.wait(waiting, num_returns=1, timeout=0.5)
                    results(ready)
                    advance(len(items) - len(waiting), "")
            return results(references)


def _call(function: Callable[[Any, Any], Any], item: Any, shared: Any) -> Any:
    return function(item, shared)


def results(references: list[Any]) -> list[Any]:
    """Return what tasks returned; raise what one raised as it is, RunError for a lost one."""
    try:
        return list(ray.get(references))
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise RunError(f"a task was lost: {error}") from error
