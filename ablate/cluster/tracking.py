"""Training and trials as they go on, sent to the trackers that the cluster file names.

A thread sends, so that no stage waits for a tracker. One that fails after its run was opened is
left out with a note; the study goes on. On an object store the steps of a model come when its
worker keeps its log there: with its resume states, and at its end.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ablate.cluster.session import scratch_folder
from ablate.cluster.trackers import Row, Subject, Tracker, in_short, open_trackers
from ablate.errors import AblateError
from ablate.progress import heard_by, note
from ablate.resources import Cluster
from ablate.stores import Following, is_mirrored
from ablate.study import Study, to_yaml
from ablate.train.step_tail import PREFIX, StepTail
from ablate.workspace import Workspace, slug

SEND_SECONDS = 3.0
END_SECONDS = 120.0

Steps = dict[str, list[dict[str, Any]]]


@contextmanager
def tracked(study: Study, workspace: Workspace, cluster: Cluster, verb: str) -> Iterator[None]:
    """Send what happens in the block to the cluster file's trackers; none are asked by default.

    Raises StudyError before the block when one cannot be opened.
    """
    subject = Subject(
        study=study.name, verb=verb, text=to_yaml(study), parameters=parameters_of(study)
    )
    trackers = open_trackers(cluster.tracking, subject, workspace.tracking)
    if not trackers:
        yield
        return
    with _new_steps(workspace, cluster) as new_steps:
        feed = Feed(trackers, new_steps)
        feed.start()
        outcome = "failed"
        try:
            with heard_by(feed):
                yield
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "stopped"
            raise
        finally:
            feed.end(outcome)


@contextmanager
def _new_steps(workspace: Workspace, cluster: Cluster) -> Iterator[Callable[[], Steps]]:
    """Yield what returns the steps that are new since it was asked, by run."""
    if not is_mirrored(workspace.root):
        yield StepTail(workspace.logs).new
        return
    with scratch_folder(cluster) as folder:
        logs, tail = Following(workspace.root, "logs", PREFIX, folder), StepTail(folder)

        def new() -> Steps:
            logs.bring()
            return tail.new()

        yield new


def parameters_of(study: Study) -> dict[str, str]:
    """Return the study's keys, as `train.learning_rate`, with their values as text.

    Names that the user gives are slugs there: trackers do not take all characters.
    """
    found: dict[str, str] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{place}.{slug(key)}" if place else key)
        else:
            found[place] = value if isinstance(value, str) else json.dumps(value)

    walk(study.model_dump(mode="json", by_alias=True), "")
    return {key: value for key, value in found.items() if value}


class Feed:
    """A listener whose thread sends trials and new steps to trackers."""

    def __init__(self, trackers: Mapping[str, Tracker], new_steps: Callable[[], Steps]) -> None:
        self._opened = trackers
        self._trackers = dict(trackers)
        self._new_steps = new_steps
        self._heard: queue.SimpleQueue[Row] = queue.SimpleQueue()
        self._rows: list[Row] = []
        self._number = 0
        self._best: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __call__(self, stage: str | None, event: str, values: Mapping[str, Any]) -> None:
        """Take a trial."""
        if event == "trial":
            self._number += 1
            self._heard.put(self._row(values))

    def _row(self, values: Mapping[str, Any]) -> Row:
        objective = values["objective"]
        if objective is not None and values["kind"] != "seed":
            self._best = objective if self._best is None else min(self._best, objective)
        numbers = {
            "objective": objective,
            "best": self._best,
            "size": values["size"],
            "members": values["members"],
            "estimate": values["estimate"],
            "merge_seconds": values["merge_seconds"],
            "evaluate_seconds": values["evaluate_seconds"],
            **{f"loss/{slug(name)}": loss for name, loss in values["losses"].items()},
        }
        shares = values["weights"].items()
        return Row(
            number=self._number,
            values={name: float(value) for name, value in numbers.items() if value is not None},
            words={
                "kind": values["kind"],
                "mixture": " + ".join(f"{share:.4g} {name}" for name, share in shares),
                "merge": values["merge"],
                "error": values["error"],
            },
        )

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def end(self, outcome: str) -> None:
        """Send what is left and close the trackers; give up, with a note, after two minutes."""
        self._over.set()
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            note(f"tracking: the last values were not sent in {END_SECONDS:.0f} s; left out")
            return
        left_out = [one for name, one in self._opened.items() if name not in self._trackers]
        self._each(lambda tracker: tracker.end(self._rows, outcome))
        for tracker in left_out:
            with contextlib.suppress(*tracker.errors):  # said when it was left out
                tracker.end((), "failed")

    def _work(self) -> None:
        while not self._over.wait(SEND_SECONDS):
            self._send()
        self._send()

    def _send(self) -> None:
        rows = [self._heard.get() for _ in range(self._heard.qsize())]
        self._rows += rows
        if rows:
            self._each(lambda tracker: tracker.trials(rows))
        try:
            steps = self._new_steps()
        except (OSError, AblateError) as error:
            note(f"tracking: a step log cannot be read ({error}); tried again")
            return
        for run, records in steps.items():
            self._each(lambda tracker, run=run, records=records: tracker.steps(run, records))

    def _each(self, act: Callable[..., None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except tracker.errors as error:
                del self._trackers[name]
                note(f"tracking: {name} is left out from here on: {in_short(error)}")
