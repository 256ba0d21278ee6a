"""The log of a run: one JSON line per optimizer step, rewound when the run goes back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablate.workspace import lines_of, write_atomic

SHOWN_POINTS = 200
MAX_LINE_BYTES = 1 << 16
NEEDED = {"step", "loss", "learning_rate"}


class StepLog:
    """Lines `{step, loss, learning_rate, grad_norm, tokens, tokens_per_second}`, steps from 1."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the log after `step` steps: lines of later steps are dropped."""
        self.records = [line for line in _read(path) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in self.records)
        write_atomic(path, text.encode())
        self._stream = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append a step; it is in the file when this returns."""
        self.records.append(record)
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def summary(self) -> dict[str, Any]:
        """Return first and last loss and at most 200 points `[step, value]` of loss and rate."""
        every = max(1, -(-len(self.records) // SHOWN_POINTS))
        points = [r for i, r in enumerate(self.records) if i % every == 0]
        if self.records and points[-1] is not self.records[-1]:
            points.append(self.records[-1])
        return {
            "first_loss": self.records[0]["loss"] if self.records else None,
            "last_loss": self.records[-1]["loss"] if self.records else None,
            "losses": [[r["step"], r["loss"]] for r in points],
            "effective_learning_rates": [[r["step"], r["learning_rate"]] for r in points],
        }


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a log; a line cut short by a crash is left out."""
    if not path.exists():
        return []
    return step_records(lines_of(path, MAX_LINE_BYTES))


def step_records(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the steps that lines of a log hold; damaged ones are left out."""
    records: list[dict[str, Any]] = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and type(value.get("step")) is int and value.keys() >= NEEDED:
            records.append(value)
    return records
