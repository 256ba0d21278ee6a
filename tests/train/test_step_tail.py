"""Step logs read while they grow: every step once, whatever the run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.train.step_tail import StepTail
from ablate.train.steplog import StepLog


def record(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 1.0 / step, "learning_rate": 1e-3, "tokens": 64 * step}


def steps(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[int]]:
    return {run: [one["step"] for one in records] for run, records in found.items()}


def test_a_log_is_told_step_by_step_and_an_old_one_never(tmp_path: Path) -> None:
    old = StepLog(tmp_path / "train-old.jsonl", 0)
    old.write(record(1))
    old.close()
    tail = StepTail(tmp_path)
    assert tail.new() == {}
    log = StepLog(tmp_path / "train-a.jsonl", 0)
    log.write(record(1))
    log.write(record(2))
    assert tail.new() == {"a": [record(1), record(2)]}
    assert tail.new() == {}
    log.write(record(3))
    assert steps(tail.new()) == {"a": [3]}


def test_a_resumed_log_is_told_whole_and_repeated_steps_once(tmp_path: Path) -> None:
    path = tmp_path / "train-a.jsonl"
    before = StepLog(path, 0)
    for step in (1, 2, 3):
        before.write(record(step))
    tail = StepTail(tmp_path)
    resumed = StepLog(path, 2)  # an earlier call trained two steps that are kept
    resumed.write(record(3))
    assert steps(tail.new()) == {"a": [1, 2, 3]}
    again = StepLog(path, 1)
    again.write(record(2))
    assert tail.new() == {}
    again.write(record(3))
    again.write(record(4))
    assert steps(tail.new()) == {"a": [4]}


def test_a_line_in_writing_waits_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    tail = StepTail(tmp_path)
    path = tmp_path / "train-a.jsonl"
    rest = b', "loss": 1.0, "learning_rate": 0.1'
    path.write_bytes(b'{"step": 1' + rest + b'}\n\xff{]\n[1]\n{"step": 9}\n{"step": 2' + rest)
    assert steps(tail.new()) == {"a": [1]}
    with path.open("ab") as stream:
        stream.write(b"}\n")
    assert steps(tail.new()) == {"a": [2]}
