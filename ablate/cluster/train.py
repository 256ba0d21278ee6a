"""Training jobs on Ray Train V2.

A *lane* is one TorchTrainer run: a worker group that Ray Train schedules as a gang, and restarts
when a worker dies. A lane trains one job after another, so its start-up (imports, process group)
is paid once per lane and not once per model. What is trained does not depend on the lane.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablate.cluster.lane import work
from ablate.cluster.metrics import TrainingMeter
from ablate.cluster.queue import JobQueue, Snapshot
from ablate.cluster.room import (
    PATIENCE_SECONDS,
    Bundle,
    Shortage,
    asked_for,
    bundle_of,
    require_room,
)
from ablate.cluster.session import own_ray_died, scratch_folder, session
from ablate.cluster.threads import WatchedThread
from ablate.errors import RunError, StudyError, UserError
from ablate.progress import note
from ablate.resources import Cluster
from ablate.train.deepspeed_config import check_stage
from ablate.train.finished import what_is_wrong
from ablate.train.job import Placement, TrainingJob
from ablate.train.recipe import check_batch
from ablate.workspace import Workspace

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0
START_SECONDS = 600
CONTROLLER_TRIES = 3  # to start a worker group, beside those that `wait_minutes` allow
UNUSED_CALLBACKS = frozenset({"DatasetsCallback", "PlacementGroupCleanerCallback"})
ENVIRONMENT = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A lost worker is found by the health check; its job goes on from its resume state.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Imports alone can take most of Ray's 60 s on a busy machine.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": f"{START_SECONDS}",
}

Progress = Callable[[float, float, str], None]


def train_jobs(
    jobs: Sequence[TrainingJob], cluster: Cluster, workspace: Workspace, on_progress: Progress
) -> None:
    """Train every job; each ends as its folder in the workspace.

    Jobs that start from another job's folder wait for it, so a seed and its units may come in one
    call: the lanes then start once. `on_progress(done, total, detail)` hears tokens over all jobs. A job that fails by itself does
    not stop the others; at the end UserError (the user can mend it: a loss that diverged, bad
    tokens) or RunError (machines) names the failed ones in one line. On KeyboardInterrupt the
    lanes save their states and end, and it is raised again; call it again to go on.
    """
    if not jobs:
        return
    check_stage(cluster.deepspeed)
    for job in jobs:
        check_batch(job.recipe, cluster.train)
        if job.path.exists() and (problem := what_is_wrong(job.path, job)) is not None:
            note(f"{job.name}: trained again, {problem}")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    total = sum(job.recipe.tokens for job in jobs)
    train = cluster.train
    bundle = bundle_of(train.cpus_per_worker, train.gpus_per_worker)
    with session(cluster), scratch_folder(cluster) as scratch:
        require_room(
            f"train.workers_per_run {train.workers_per_run} workers",
            bundle,
            train.workers_per_run,
            cluster.wait_minutes,
            "lower them in the cluster file",
        )
        # On the driver's node: it must not be lost with a worker's.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        queue: Any = (
            ray.remote(JobQueue)
            .options(num_cpus=0, scheduling_strategy=here)
            .remote(list(jobs), train.max_failures)
        )
        lanes = _Lanes(
            lambda number: _Lane(number, queue, cluster, scratch, len(jobs)), bundle, cluster
        )
        wanted = min(train.concurrent_runs or 0, len(jobs)) if cluster.wait_minutes else 0
        with asked_for(bundle, wanted * train.workers_per_run):
            end = _follow(lanes, queue, lambda now: on_progress(now.tokens, total, _detail(now)))
    _raise_failures(end, len(jobs), lanes.problems)


class _LeanTrainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer without helper processes that serve nothing here.

    Each costs 2 to 3 CPU seconds of imports per lane: one hands out Ray Data shards, one frees
    placement groups after a dead controller (a driver that is gone takes them with it anyway).
    """

    def _create_default_callbacks(self) -> list[Any]:
        found: list[Any] = super()._create_default_callbacks()
        return [callback for callback in found if type(callback).__name__ not in UNUSED_CALLBACKS]


class _Lane(WatchedThread):
    """One TorchTrainer run; off the main thread, where Ray Train would take over Ctrl-C."""

    def __init__(self, lane: int, queue: Any, cluster: Cluster, scratch: Path, jobs: int) -> None:
        super().__init__(f"lane-{lane}")
        self.problem: str | None = None
        self._lane, self._queue = lane, queue
        train = cluster.train
        resources = {"CPU": train.cpus_per_worker}
        if train.gpus_per_worker:
            resources["GPU"] = train.gpus_per_worker
        self._trainer = _LeanTrainer(
            work,
            train_loop_config={
                "queue": queue,
                "lane": lane,
                "placement": Placement.of(cluster),
            },
            scaling_config=ScalingConfig(
                num_workers=train.workers_per_run,
                use_gpu=train.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=f"lane-{lane}",
                storage_path=str(scratch),
                # The queue counts deaths per job; this only bounds a group that cannot start.
                failure_config=FailureConfig(
                    max_failures=(train.max_failures + 1) * jobs,
                    controller_failure_limit=CONTROLLER_TRIES
                    + math.ceil(60 * cluster.wait_minutes / START_SECONDS),
                ),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )

    def work(self) -> None:
        """Run until the queue is empty."""
        try:
            self._trainer.fit()
        except (TrainingFailedError, RayError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self.problem = lines[-1] if lines else type(error).__name__
            if not ray.is_initialized():  # closed meanwhile; a call would start another Ray
                return
            with contextlib.suppress(RayError):
                ray.get(self._queue.fail.remote(self._lane, RunError(self.problem)))


class _Lanes:
    """The lanes of a training: as many as the cluster holds, more when nodes join."""

    def __init__(self, make: Callable[[int], _Lane], bundle: Bundle, cluster: Cluster) -> None:
        self._make, self._bundle, self._cluster = make, bundle, cluster
        self._lanes: list[_Lane] = []
        self._shortage = Shortage("training run", bundle, cluster.train.workers_per_run, cluster)
        self._idle_since = time.monotonic()

    @property
    def running(self) -> bool:
        """Return whether any lane works, or waits for its nodes."""
        return any(lane.running for lane in self._lanes)

    @property
    def problems(self) -> list[str]:
        """Return why lanes broke."""
        return [lane.problem for lane in self._lanes if lane.problem is not None]

    def grow(self, now: Snapshot) -> None:
        """Start lanes for jobs that are not finished, as far as the cluster has room for them.

        Raises RunError when it has had no room for a single one for too long.
        """
        fit = self._shortage.look()
        if fit is None:
            return
        self._note_waiting(len(now.running))
        most = min(fit, self._cluster.train.concurrent_runs or fit) - len(self.problems)
        running = sum(lane.running for lane in self._lanes)
        for _ in range(min(now.unfinished, most) - running):
            lane = self._make(len(self._lanes))
            self._lanes.append(lane)
            lane.start()

    def _note_waiting(self, running: int) -> None:
        """Say once in a while when lanes wait for what others hold: Ray itself says nothing."""
        now = time.monotonic()
        if running or not self.running:
            self._idle_since = now
        elif now - self._idle_since > PATIENCE_SECONDS:
            self._idle_since = now
            there, total = ray.available_resources(), ray.cluster_resources()
            workers = self._cluster.train.workers_per_run
            if all(there.get(kind, 0.0) >= workers * size for kind, size in self._bundle.items()):
                note("training waits for its workers to start; resources are free")
                return
            free = ", ".join(
                f"{there.get(kind, 0.0):g} of {total.get(kind, 0.0):g} {kind}s"
                for kind in self._bundle
            )
            note(f"training waits until one run of its workers fits; free now: {free}")

    def wait(self, seconds: float) -> None:
        """Wait for the end of a lane that runs, so long at most."""
        for lane in self._lanes:
            if lane.running:
                lane.wait(seconds)
                return


def _follow(lanes: _Lanes, queue: Any, show: Callable[[Snapshot], None]) -> Snapshot:
    """Start the lanes and return the queue's last word when all have ended."""
    meter = TrainingMeter()

    def look() -> Snapshot:
        now: Snapshot = ray.get(queue.snapshot.remote())
        for text in now.notes:
            note(text)
        meter.see(now)
        show(now)
        return now

    try:
        lanes.grow(look())
        while lanes.running:
            lanes.grow(look())
            lanes.wait(POLL_SECONDS)
        return look()
    except (KeyboardInterrupt, RunError):
        _stop(lanes, queue)
        raise


def _stop(lanes: _Lanes, queue: Any) -> None:
    """Have the lanes save their states and end; where Ray has died there is nothing to wait for."""
    asked = queue.stop.remote()
    while not ray.wait([asked], timeout=POLL_SECONDS)[0]:
        if own_ray_died():
            return
    note("stopping: each run saves its state at the end of its step")
    end = time.monotonic() + STOP_SECONDS
    while lanes.running and time.monotonic() < end and not own_ray_died():
        lanes.wait(POLL_SECONDS)


def _detail(now: Snapshot) -> str:
    return f"{now.finished} trained, {len(now.running)} running, {now.waiting} waiting"


def _raise_failures(end: Snapshot, jobs: int, problems: Sequence[str]) -> None:
    left = jobs - end.finished - len(end.failures)
    if not end.failures and not left:
        return
    parts = [str(error) for _, error in end.failures]
    if left:
        why = f" ({problems[0]})" if problems else ""
        parts.append(f"{left} of {jobs} jobs were not trained{why}")
    text = " ".join("; also: ".join(parts).split())
    # Jobs that wait for a failed start are left without any machine being at fault.
    explained = end.failures and not problems
    if explained and all(isinstance(error, UserError) for _, error in end.failures):
        raise StudyError(text)
    raise RunError(text)
