"""The log of each stage: `logs/<stage>.jsonl`, one JSON line per event, for people and collectors.

It is written and never read back: a line cut short, or a damaged file, can hurt no run. Its time
stamps are the wall clock's; nothing else in a study looks at that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablate.progress import heard_by

MOST_BYTES = 16 << 20
TEXT_LENGTH = 2000


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Append the events of all stages to logs in `folder` until the end of the block."""
    with heard_by(StageLog(folder)):
        yield


class StageLog:
    """A listener that appends `{time, stage, event, ...}` lines, `time` in UTC, ISO 8601.

    A file that would grow beyond `MOST_BYTES` becomes `<stage>.1.jsonl`, in place of an older one.
    A log that cannot be written (a full disk, a folder without leave) stops no stage: one line on
    standard error says so, even where progress is quiet, and that stage is logged no further.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._given_up: set[str] = set()

    def __call__(self, stage: str | None, event: str, values: Mapping[str, Any]) -> None:
        """Append one line; it is with the operating system when this returns."""
        name = stage or "other"
        if name in self._given_up:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(
            {"time": now, "stage": name, "event": event, **_short(values)}, ensure_ascii=False
        )
        path = self._folder / f"{name}.jsonl"
        try:
            _append(path, line.encode("utf-8", "replace") + b"\n")
        except OSError as error:
            self._given_up.add(name)
            print(
                f"{path} cannot be written ({error.strerror}): the stage goes on without its log",
                file=sys.stderr,
                flush=True,
            )


def _short(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value[:TEXT_LENGTH] if isinstance(value, str) else value
        for key, value in values.items()
    }


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size + len(line) > MOST_BYTES:
        path.replace(path.with_suffix(".1.jsonl"))
    with path.open("ab+", buffering=0) as stream:
        size = stream.tell()
        stream.seek(max(0, size - 1))
        if size and stream.read(1) != b"\n":  # of a line that a crash cut short
            line = b"\n" + line
        stream.write(line)
