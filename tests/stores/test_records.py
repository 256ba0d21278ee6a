"""What only a driver writes, logs and files of trackers: kept in the store, gone on with there."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ablate.cluster import tracking
from ablate.cluster.tracking import tracked
from ablate.progress import note, stage
from ablate.resources import Cluster
from ablate.stage_log import logged
from ablate.stores import driver as drive
from ablate.stores import mirror
from ablate.stores.objects import Objects
from ablate.study import Study
from ablate.workspace import Workspace
from tests.security.test_harmless import TREE


def on(machine: Path, uri: str, patch: pytest.MonkeyPatch) -> Workspace:
    """Return the workspace as a new process of a machine opens it."""
    patch.setenv("ABLATE_MIRRORS", str(machine))
    patch.setattr(mirror, "_listings", {})
    return Workspace.open(uri)


def log_a_stage(workspace: Workspace, text: str) -> None:
    with workspace.lock(), logged(workspace.logs), stage("train"):
        note(text)


def notes(data: bytes | None) -> list[str]:
    lines = [json.loads(line) for line in (data or b"").splitlines()]
    return [line["text"] for line in lines if line["event"] == "note"]


def test_logs_outlive_a_run_and_the_next_machine_goes_on_with_them(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = on(tmp_path / "one", uri, monkeypatch)
    log_a_stage(one, "first")
    assert notes(Objects(uri).read("logs/train.jsonl")) == ["first"]
    on(tmp_path / "one", uri, monkeypatch).refresh()  # as `status` does, or the end of `run`
    assert notes((one.logs / "train.jsonl").read_bytes()) == ["first"]
    log_a_stage(on(tmp_path / "two", uri, monkeypatch), "second")
    log_a_stage(on(tmp_path / "one", uri, monkeypatch), "third")
    assert notes(Objects(uri).read("logs/train.jsonl")) == ["first", "second", "third"]


def test_a_log_is_in_the_store_while_its_stage_goes_on(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "RECORD_SECONDS", 0.5)
    workspace = on(tmp_path / "one", uri, monkeypatch)
    with workspace.lock(), logged(workspace.logs), stage("train"):
        note("on the way")
        end = time.monotonic() + 20
        while not notes(Objects(uri).read("logs/train.jsonl")) and time.monotonic() < end:
            time.sleep(0.1)
        assert notes(Objects(uri).read("logs/train.jsonl")) == ["on the way"]


def test_what_a_killed_driver_had_not_kept_is_kept_by_the_next_one(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = on(tmp_path / "one", uri, monkeypatch)
    log_a_stage(one, "first")
    with logged(one.logs), stage("train"):  # no keeper: as if it were killed
        note("last words")
    log_a_stage(on(tmp_path / "one", uri, monkeypatch), "second")
    assert notes(Objects(uri).read("logs/train.jsonl")) == ["first", "last words", "second"]


def step_lines(steps: Sequence[int]) -> bytes:
    records: list[dict[str, Any]] = [
        {"step": n, "tokens": 64 * n, "loss": 1 / n, "learning_rate": 1e-3, "grad_norm": 0.5,
         "tokens_per_second": 10.0}
        for n in steps
    ]  # fmt: skip
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


class Heard:
    """A tracker that only remembers."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self) -> None:
        self.steps_of: dict[str, list[int]] = {}

    def open(self, _asked: Any, _subject: Any, folder: Path) -> dict[str, Heard]:
        self._file = folder / "heard/events"
        self._file.parent.mkdir(parents=True)
        self._file.write_text("begin")
        return {"heard": self}

    def steps(self, run: str, records: Sequence[Any]) -> None:
        self.steps_of.setdefault(run, []).extend(record["step"] for record in records)

    def trials(self, rows: Sequence[Any]) -> None:
        raise AssertionError("no trials here")

    def end(self, rows: Sequence[Any], outcome: str) -> None:
        self._file.write_text(outcome)


def test_a_tracker_hears_steps_of_other_machines_and_its_files_are_kept(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SEND_SECONDS", 0.1)
    tracker = Heard()
    monkeypatch.setattr(tracking, "open_trackers", tracker.open)
    Objects(uri).write("logs/train-old.jsonl", step_lines([1, 2]))
    study = Study.model_validate({**TREE, "workspace": uri})
    workspace = on(tmp_path / "one", uri, monkeypatch)
    with workspace.lock(), tracked(study, workspace, Cluster(), "train"):
        Objects(uri).write("logs/train-unit.jsonl", step_lines([1, 2]))
        end = time.monotonic() + 20
        while "unit" not in tracker.steps_of and time.monotonic() < end:
            time.sleep(0.1)
        assert tracker.steps_of == {"unit": [1, 2]}
        Objects(uri).write("logs/train-unit.jsonl", step_lines([1, 2, 3]))
    assert tracker.steps_of == {"unit": [1, 2, 3]}
    assert Objects(uri).read("tracking/heard/events") == b"done"
    assert list(Objects(uri).find("tracking")) == ["tracking/heard/events"]
    on(tmp_path / "one", uri, monkeypatch).refresh()
    assert (workspace.tracking / "heard/events").read_text() == "done"
    assert not (workspace.logs / "train-unit.jsonl").exists()
    two = on(tmp_path / "two", uri, monkeypatch)
    with two.lock():
        assert (two.tracking / "heard/events").read_text() == "done"
