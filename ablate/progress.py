"""Progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ablate.harmless import visible, without_secrets


class Advance(Protocol):
    """Show that `done` of the total is reached, with a word beside it."""

    def __call__(self, done: float, detail: str = "") -> None:
        """Move the bar."""


LINE_EVERY_SECONDS = 10.0

console = Console(stderr=True, soft_wrap=True, highlight=False)
quiet = False


def set_quiet(value: bool) -> None:
    """Silence notes and bars for the rest of the process (errors are printed elsewhere)."""
    global quiet
    quiet = value


def note(text: str) -> None:
    """Print one line on standard error, without secrets and without commands to a terminal."""
    if not quiet:
        console.print(visible(without_secrets(text)), markup=False)


@contextmanager
def bar(label: str, total: float) -> Iterator[Advance]:
    """Yield `advance(done, detail)`, where `done` is absolute, out of `total`.

    On a terminal this is a bar; elsewhere a line at most every ten seconds and one at the end.
    """
    if quiet:
        yield _nothing
    elif console.is_terminal:
        with Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=False,
        ) as progress:
            task = progress.add_task(label, total=total, detail="")

            def move(done: float, detail: str = "") -> None:
                progress.update(task, completed=done, detail=detail)

            yield move
    else:
        yield _lines(label, total)


def _lines(label: str, total: float) -> Advance:
    started = last = time.monotonic()
    ended = False

    def advance(done: float, detail: str = "") -> None:
        nonlocal last, ended
        now = time.monotonic()
        if (done >= total and not ended) or now - last >= LINE_EVERY_SECONDS:
            last, ended = now, done >= total
            shown = f"{done:,.0f}/{total:,.0f}"
            print(
                f"{label:<10} {shown} in {now - started:.0f}s {detail}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    return advance


def _nothing(done: float, detail: str = "") -> None:
    """Show nothing."""
