"""What runs in a Ray Train worker: one job after another, each with its own DeepSpeed engine.

Importing torch, DeepSpeed and transformers is paid once here, not once for every model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import ray

from ablate.cluster.queue import Wait
from ablate.errors import AblateError
from ablate.train.job import Placement, TrainingJob

REPORT_SECONDS = 1.0
WAIT_SECONDS = 0.5


def work(config: Mapping[str, Any]) -> None:
    """Train jobs from `config["queue"]` until there are none; the function Ray Train calls."""
    placement: Placement = config["placement"]
    # Before DeepSpeed is imported: otherwise it guesses, and warns that it found no GPU.
    os.environ["DS_ACCELERATOR"] = "cuda" if placement.gpu else "cpu"
    from ablate.train import together
    from ablate.train.loop import train_one

    line = Line(config["queue"], config["lane"])
    with line:
        while True:
            job = together.tell(line.take() if together.rank() == 0 else None)
            if job is None:
                return
            if isinstance(job, Wait):
                time.sleep(WAIT_SECONDS)
                continue
            try:
                published = train_one(job, placement, line)
            except AblateError as error:
                if together.rank() == 0:
                    line.fail(error)
            else:
                if not published:
                    return
                if together.rank() == 0:
                    line.finish()


class Line:
    """A lane's line to the queue actor."""

    def __init__(self, queue: Any, lane: int) -> None:
        self._queue, self._lane = queue, lane
        self._sent = 0.0
        self._answer: Any = None

    def take(self) -> TrainingJob | Wait | None:
        """Return the next job, waiting for the answer."""
        return ray.get(self._queue.take.remote(self._lane))  # type: ignore[no-any-return]

    def tokens(self, done: int) -> bool:
        """Send the tokens done, at most once a second; return whether to stop, once known."""
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            stop, self._answer = bool(ray.get(self._answer)), None
            if stop:
                return True
        now = time.monotonic()
        if self._answer is None and now - self._sent >= REPORT_SECONDS:
            self._answer, self._sent = self._queue.report.remote(self._lane, done), now
        return False

    def note(self, text: str) -> None:
        """Send a line for the driver to print."""
        self._queue.note.remote(text)

    def finish(self) -> None:
        """Tell that the job is published."""
        ray.get(self._queue.finish.remote(self._lane))

    def fail(self, error: AblateError) -> None:
        """Tell that the job cannot be done."""
        ray.get(self._queue.fail.remote(self._lane, error))

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            first = (str(error).strip().splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {first}"
            ray.get(self._queue.crash.remote(self._lane, reason))
