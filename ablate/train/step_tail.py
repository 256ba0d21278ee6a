"""What the step logs of a workspace gain while training runs: read, never waited for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.train.steplog import step_records

PREFIX = "train-"


@dataclass
class _Place:
    """How far a log is read: of which file (its inode), to which byte, to which step."""

    file: int
    bytes: int
    step: int = 0


class StepTail:
    """The logs `train-<run>.jsonl` of a folder that change after this is made.

    A log that grows is told from its first step: what a run had trained before it was resumed is
    part of its curve. A run that goes back to a resume state repeats the same steps: told once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[Path, _Place] = {}
        self._before = {path: _state(path) for path in self._logs()}

    def new(self) -> dict[str, list[dict[str, Any]]]:
        """Return the records of new steps by run; a line that is being written waits."""
        found: dict[str, list[dict[str, Any]]] = {}
        for path in self._logs():
            if self._before.get(path) == _state(path):
                continue
            records = self._read(path)
            if records:
                found[path.stem.removeprefix(PREFIX)] = records
        return found

    def _logs(self) -> list[Path]:
        return sorted(self._folder.glob(f"{PREFIX}*.jsonl"))

    def _read(self, path: Path) -> list[dict[str, Any]]:
        with path.open("rb") as stream:
            file, size = _state(path)
            place = self._places.setdefault(path, _Place(file, 0))
            if (
                place.file != file or size < place.bytes
            ):  # the run went back: a new file, cut to its resume step
                place.file, place.bytes = file, 0
            stream.seek(place.bytes)
            whole, newline, _ = stream.read().rpartition(b"\n")
        place.bytes += len(whole) + len(newline)
        records = step_records(whole.splitlines())
        new = [record for record in records if record["step"] > place.step]
        if new:
            place.step = new[-1]["step"]
        return new


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_size
