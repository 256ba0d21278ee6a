"""Progress on standard error: bars on a terminal, plain lines elsewhere.

What is shown is also told to listeners (the stage log, trackers, metrics) as events.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

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


class Listener(Protocol):
    """Hear what happens in a stage (None outside of one)."""

    def __call__(self, stage: str | None, event: str, values: Mapping[str, Any]) -> None:
        """Hear one event; `values` are plain JSON values."""


LINE_EVERY_SECONDS = 10.0
TELL_EVERY_SECONDS = 60.0
ERROR_LENGTH = 500

_listeners: list[Listener] = []
_stages: list[str] = []

console = Console(stderr=True, soft_wrap=True, highlight=False)
quiet = False


def set_quiet(value: bool) -> None:
    """Silence notes and bars for the rest of the process (errors are printed elsewhere)."""
    global quiet
    quiet = value


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have `listener` hear every event of this process until the end of the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(event: str, **values: Any) -> None:
    """Tell the listeners that something happened in the present stage."""
    for listener in _listeners:
        listener(_stages[-1] if _stages else None, event, values)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name the stage that the block (or the decorated function) is; tell its begin and end."""
    began = time.monotonic()
    _stages.append(name)
    outcome: dict[str, Any] = {"outcome": "done"}
    tell("begin")
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        text = without_secrets(f"{type(error).__name__}: {error}")[:ERROR_LENGTH]
        outcome = {"outcome": "stopped"} if stopped else {"outcome": "failed", "error": text}
        raise
    finally:
        tell("end", seconds=_since(began), **outcome)
        _stages.pop()


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def note(text: str) -> None:
    """Print one line on standard error, without secrets and without commands to a terminal."""
    text = without_secrets(text)
    tell("note", text=text)
    if not quiet:
        console.print(visible(text), markup=False)


@contextmanager
def bar(label: str, total: float) -> Iterator[Advance]:
    """Yield `advance(done, detail)`, where `done` is absolute, out of `total`.

    On a terminal this is a bar; elsewhere a line at most every ten seconds and one at the end.
    Listeners are told at most once a minute, and at the end.
    """
    began = told = time.monotonic()
    reached: dict[str, Any] = {"done": 0, "detail": ""}

    def say(event: str) -> None:
        tell(event, part=label, total=total, seconds=_since(began), **reached)

    with _shown(label, total) as show:

        def advance(done: float, detail: str = "") -> None:
            nonlocal told
            show(done, detail)
            reached.update(done=done, detail=detail or reached["detail"])
            if time.monotonic() - told >= TELL_EVERY_SECONDS:
                told = time.monotonic()
                say("progress")

        try:
            yield advance
        finally:
            say("part")


@contextmanager
def _shown(label: str, total: float) -> Iterator[Advance]:
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
