"""Training jobs on Ray Train: lanes, order, failures, lost workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from ablate.cluster import room
from ablate.cluster.queue import JobQueue, Snapshot, Wait
from ablate.cluster.room import Shortage
from ablate.cluster.train import _Lanes, _raise_failures, train_jobs
from ablate.errors import RunError, StudyError
from ablate.resources import Cluster
from ablate.train.finished import is_complete
from ablate.train.job import Start, TrainingJob
from ablate.train.loop import train_one
from ablate.workspace import Workspace
from tests.train.runs import Listener, distance, job, placement, same


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


class Heard:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.done: list[float] = []

    def __call__(self, done: float, total: float, detail: str) -> None:
        assert 0 <= done <= total
        self.done.append(done)


def after(first: TrainingJob, second: TrainingJob) -> TrainingJob:
    return replace(second, start=Start(mark=first.fingerprint, folder=first.folder))


def diverging(root: Path) -> TrainingJob:
    return job(root, "bad", peak=1e30, schedule="constant", warmup_steps=0, clip=None)


@pytest.mark.usefixtures("alone", "cluster")
def test_two_workers_train_seed_then_unit_and_agree_with_one(root: Path) -> None:
    seed = job(root, "seed", kind="seed")
    unit = after(seed, job(root, "unit"))
    where = Cluster.model_validate({"train": {"workers_per_run": 2, "micro_batch_sequences": 2}})
    heard = Heard()
    jobs = [unit, diverging(root), seed]
    with pytest.raises(StudyError, match=r"must stay finite.*bad"):
        train_jobs(jobs, where, Workspace(root), heard)
    assert is_complete(seed.path, seed) and is_complete(unit.path, unit)
    assert heard.done[-1] == seed.recipe.tokens + unit.recipe.tokens
    lone = job(root, "lone", kind="seed")
    train_one(lone, placement(), Listener())
    assert distance(seed, lone) < 1e-4
    assert not list((root / "models").glob(".resume-seed*"))


@pytest.mark.faults
@pytest.mark.usefixtures("alone", "cluster")
def test_a_worker_killed_in_training_changes_nothing(root: Path) -> None:
    jobs = [job(root, f"u{i}", steps=600, rng_seed=i) for i in range(2)]
    where = Cluster.model_validate({"train": {"checkpoint_seconds": 0.2, "concurrent_runs": 1}})
    killer = threading.Thread(target=kill_once_logged, args=(Path(jobs[0].log_file), 100))
    killer.start()
    train_jobs(jobs, where, Workspace(root), Heard())
    killer.join()
    calm = job(root, "calm", steps=600, rng_seed=0)
    train_one(calm, placement(micro_batch_sequences=None), Listener())
    assert same(calm, jobs[0])
    lines = Path(jobs[0].log_file).read_text().splitlines()
    assert len(lines) == 600


def kill_once_logged(log: Path, lines: int) -> None:
    """Kill the Ray Train worker with SIGKILL when it has logged so many steps."""
    while not log.exists() or len(log.read_text().splitlines()) < lines:
        time.sleep(0.05)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_child_training(entry):
            os.kill(int(entry.name), signal.SIGKILL)


def is_child_training(entry: Path) -> bool:
    """Return whether a process is a Train worker of this session (and of no other on here)."""
    try:
        command = (entry / "cmdline").read_text(errors="replace")
        files = [str(link.readlink()) for link in (entry / "fd").iterdir()]
    except OSError:
        return False
    session = ray._private.worker._global_node.get_session_dir_path()
    ours = any(file.startswith(session) for file in files)
    return ours and "RayTrainWorker" in command


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("zero", [[1], None, {"stage": "two"}, {"stage": 4}, {"stage": True}])
def test_an_impossible_zero_stage_is_refused_before_any_worker_starts(
    root: Path, zero: object
) -> None:
    where = Cluster(deepspeed={"zero_optimization": zero})
    with pytest.raises(StudyError, match=r"deepspeed\.zero_optimization"):
        train_jobs([job(root, "a")], where, Workspace(root), lambda *_: None)


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_room_for_one_run_is_refused(root: Path) -> None:
    jobs = [job(root, "a")]
    four = Cluster.model_validate({"train": {"workers_per_run": 4}})
    with pytest.raises(StudyError, match=r"workers_per_run 4 workers of 1 CPUs, got room for 2"):
        train_jobs(jobs, four, Workspace(root), lambda *_: None)
    gpus = Cluster.model_validate({"train": {"gpus_per_worker": 1}})
    with pytest.raises(StudyError, match="1 CPUs and 1 GPUs, got room for 0"):
        train_jobs(jobs, gpus, Workspace(root), lambda *_: None)


class _Idle:
    """A lane that runs until it is told to end."""

    problem: str | None = None

    def __init__(self, number: int) -> None:
        self.number, self.running = number, False

    def start(self) -> None:
        self.running = True


@pytest.mark.parametrize(
    ("fits", "unfinished", "settings", "lanes"),
    [
        ([2], 8, {}, 2),
        ([2], 1, {}, 1),
        ([2], 8, {"concurrent_runs": 1}, 1),
        ([2], 8, {"workers_per_run": 2}, 1),
        ([2, 5], 8, {}, 5),  # nodes joined
        ([2, 5], 3, {}, 3),
        ([5, 2], 8, {}, 5),  # nodes were lost: the lanes wait for others
    ],
)
def test_lanes_are_as_many_as_fit_and_more_when_nodes_join(
    monkeypatch: pytest.MonkeyPatch,
    fits: list[int],
    unfinished: int,
    settings: dict[str, int],
    lanes: int,
) -> None:
    made: list[Any] = []

    def make(number: int) -> Any:
        made.append(_Idle(number))
        return made[-1]

    monkeypatch.setattr(room, "WATCH_SECONDS", 0.0)
    several = _Lanes(make, {"CPU": 1.0}, Cluster.model_validate({"train": settings}))
    for fit in fits:
        monkeypatch.setattr(room, "room_for", lambda _, fit=fit: fit)
        several.grow(waiting(unfinished))
    assert [lane.number for lane in made if lane.running] == list(range(lanes))


def test_a_cluster_that_lost_its_room_is_waited_for_and_then_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(room, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(room, "room_for", lambda _: 0)
    several = _Lanes(lambda _: pytest.fail("no lane"), {"CPU": 1.0}, Cluster())
    several.grow(waiting(1))
    evaluators = Shortage("evaluator", {"CPU": 1.0}, 1, Cluster())
    assert evaluators.look() == 0
    time.sleep(0.3)
    with pytest.raises(RunError, match=r"one training run, got none .* what is done is kept"):
        several.grow(waiting(1))
    monkeypatch.setattr(room, "room_for", lambda _: 1)
    assert evaluators.look() == 1  # nodes joined in time
    monkeypatch.setattr(room, "room_for", lambda _: 0)
    assert evaluators.look() == 0
    time.sleep(0.3)
    with pytest.raises(RunError, match="one evaluator"):
        evaluators.look()


def waiting(jobs: int) -> Snapshot:
    return JobQueue([job(Path("nowhere"), f"{i}") for i in range(jobs)], max_failures=0).snapshot()


def test_a_dead_group_gets_its_job_back_until_it_failed_too_often(root: Path) -> None:
    queue = JobQueue([job(root, "a"), job(root, "b")], max_failures=2)
    first = queue.take(0)
    assert isinstance(first, TrainingJob) and first.name == "a"
    queue.crash(0, "RuntimeError: out of memory")
    assert queue.take(0) == first
    assert queue.take(0) == first
    assert queue.take(0) == job(root, "b")
    queue.finish(0)
    end = queue.snapshot()
    assert end.finished == 1
    assert [(name, type(error)) for name, error in end.failures] == [("a", RunError)]
    assert "out of memory" in end.notes[0]


def test_units_wait_for_their_seed(root: Path) -> None:
    seed = job(root, "seed")
    queue = JobQueue([after(seed, job(root, "unit")), seed], max_failures=0)
    assert queue.take(0) == seed
    assert isinstance(queue.take(1), Wait)
    queue.finish(0)
    unit = queue.take(1)
    assert isinstance(unit, TrainingJob) and unit.name == "unit"
    assert queue.take(0) is None


def test_units_of_a_failed_seed_are_not_handed_out(root: Path) -> None:
    seed = job(root, "seed")
    queue = JobQueue([seed, after(seed, job(root, "unit"))], max_failures=0)
    queue.take(0)
    queue.fail(0, StudyError("diverged"))
    assert queue.take(0) is None
    assert queue.snapshot().waiting == 1


def test_what_waits_for_a_failed_seed_does_not_hide_whose_fault_it_is() -> None:
    end = Snapshot(
        tokens=0,
        finished=0,
        running=(),
        waiting=2,
        failures=(("seed", StudyError("diverged")),),
        notes=(),
    )
    with pytest.raises(StudyError, match="diverged; also: 2 of 3 jobs were not trained"):
        _raise_failures(end, 3, [])
    with pytest.raises(RunError, match="lost a node"):
        _raise_failures(end, 3, ["lost a node"])


def test_a_stop_reaches_every_lane(root: Path) -> None:
    queue = JobQueue([job(root, "a"), job(root, "b")], max_failures=0)
    queue.take(0)
    assert not queue.report(0, 100)
    queue.stop()
    assert queue.report(0, 200)
    assert queue.take(1) is None
    assert queue.snapshot().tokens == 200
