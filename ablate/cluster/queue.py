"""The queue of training jobs: lanes take the next one, give back what they did not finish.

Plain bookkeeping without Ray; `cluster/train.py` runs it as one actor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ablate.errors import AblateError, RunError
from ablate.train.job import TrainingJob


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where training stands: tokens over all jobs, how many are finished, what went wrong.

    `lane_tokens` are what each lane has trained since it was first heard of, over all its jobs;
    what a job had trained before this call is not among them.
    """

    tokens: int
    finished: int
    running: tuple[str, ...]
    waiting: int
    failures: tuple[tuple[str, AblateError], ...]
    notes: tuple[str, ...]
    lane_tokens: Mapping[int, int] = field(default_factory=dict)

    @property
    def unfinished(self) -> int:
        """Return how many jobs run or wait."""
        return len(self.running) + self.waiting


class Wait:
    """The answer to a lane whose next job starts from a model that is still being trained."""


class JobQueue:
    """Jobs that wait, run, are finished or failed.

    A job that starts from the folder of another job here is handed out when that one is finished.
    """

    def __init__(self, jobs: Sequence[TrainingJob], max_failures: int) -> None:
        """Hold `jobs`; one whose worker group died more than `max_failures` times has failed."""
        self._waiting = list(jobs)
        self._unfinished = {job.folder for job in jobs}
        self._running: dict[int, TrainingJob] = {}
        self._tokens: dict[str, int] = {}
        self._lane_tokens: dict[int, int] = {}
        self._deaths: dict[str, int] = {}
        self._reasons: dict[int, str] = {}
        self._failures: list[tuple[str, AblateError]] = []
        self._notes: list[str] = []
        self._finished = 0
        self._max_failures = max_failures
        self._stopping = False

    def take(self, lane: int) -> TrainingJob | Wait | None:
        """Return the lane's next job: the one it left unfinished, else the next that waits.

        Wait when the lane should ask again; None when there is none, or when training stops.
        """
        left = self._running.get(lane)
        if left is not None:
            self._count_death(lane, left)
        if self._stopping:
            return None
        if lane in self._running:
            return self._running[lane]
        for place, job in enumerate(self._waiting):
            if job.start.folder not in self._unfinished:
                self._running[lane] = self._waiting.pop(place)
                return job
        return Wait() if self._waiting and self._running else None

    def _count_death(self, lane: int, job: TrainingJob) -> None:
        reason = self._reasons.pop(lane, "its worker died")
        deaths = self._deaths[job.name] = self._deaths.get(job.name, 0) + 1
        if deaths > self._max_failures:
            self.fail(lane, RunError(f"{job.name} was tried {deaths} times: {reason}"))
        else:
            self._notes.append(f"{job.name}: {reason}; going on from its last resume state")

    def report(self, lane: int, tokens: int) -> bool:
        """Record the tokens that the lane's job has trained; return whether it should stop."""
        if lane in self._running:
            self._reach(lane, self._running[lane], tokens)
        return self._stopping

    def _reach(self, lane: int, job: TrainingJob, tokens: int) -> None:
        # The first report comes after one step, also of a job that goes on from a resume state.
        before = self._tokens.get(job.name, tokens - job.recipe.batch_tokens)
        more = max(0, tokens - before)
        self._lane_tokens[lane] = self._lane_tokens.get(lane, 0) + more
        self._tokens[job.name] = tokens

    def crash(self, lane: int, reason: str) -> None:
        """Remember why the lane's worker group is about to die (the first worker's word)."""
        self._reasons.setdefault(lane, reason)

    def finish(self, lane: int) -> None:
        """Record that the lane's job is published."""
        job = self._running.pop(lane)
        self._reach(lane, job, job.recipe.tokens)
        self._unfinished.discard(job.folder)
        self._finished += 1

    def fail(self, lane: int, error: AblateError) -> None:
        """Record that the lane's job cannot be done; the lane may take another."""
        job = self._running.pop(lane, None)
        if job is not None:
            self._tokens.pop(job.name, None)
            self._failures.append((job.name, error))

    def note(self, text: str) -> None:
        """Keep a line for the driver to print."""
        self._notes.append(text)

    def stop(self) -> None:
        """Ask every lane to save its state and end."""
        self._stopping = True

    def snapshot(self) -> Snapshot:
        """Return where training stands; notes are handed out once."""
        notes, self._notes = tuple(self._notes), []
        return Snapshot(
            tokens=sum(self._tokens.values()),
            finished=self._finished,
            running=tuple(job.name for job in self._running.values()),
            waiting=len(self._waiting),
            failures=tuple(self._failures),
            notes=notes,
            lane_tokens=dict(self._lane_tokens),
        )
