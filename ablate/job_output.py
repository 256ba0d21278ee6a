"""A job's one log holds results and progress: results are marked, so that they part again."""

from __future__ import annotations

import io
import sys
from typing import TextIO

MARK = "| "
"""Before every line of a job's standard output in its log."""
MARKING = "ABLATE_MARK_RESULTS"
"""The environment variable that has `python -m ablate` mark its results."""


class MarkedLines(io.TextIOBase):
    """Standard output whose lines begin with MARK; `print` and rich write to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._at_start = True

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write text, marked at the start of every line."""
        for line in text.splitlines(keepends=True):
            self._stream.write(MARK + line if self._at_start else line)
            self._at_start = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()


def show_line(line: str) -> None:
    """Print a line of a job's log where it belongs: results on stdout, all else on stderr."""
    stream = sys.stdout if line.startswith(MARK) else sys.stderr
    print(line.removeprefix(MARK), file=stream, flush=True)
