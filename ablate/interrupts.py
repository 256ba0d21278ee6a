"""Ctrl-C and a polite kill: they arrive between any two steps of the interpreter.

An exception that is raised where Python runs a callback (after a fork, in a finalizer) is printed
and lost, and one inside logging may leave its lock held: the process neither ends nor goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.05


@contextmanager
def heard() -> Iterator[list[int]]:
    """Make SIGINT and SIGTERM a KeyboardInterrupt while inside; yield those that came, in order.

    Where the exception would be lost the signal comes again a moment later. Signals that this
    process was started to ignore stay ignored.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_lost(frame):
            _again(number)
            return
        came.append(number)
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        if lost.exc_type is KeyboardInterrupt and came:
            _again(came.pop())
        else:
            hook(lost)

    hook, before = sys.unraisablehook, _answered()
    for number in before:
        signal.signal(number, stop)
    sys.unraisablehook = unraisable
    try:
        yield came
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of what is inside; a second one does not wait.

    What is inside cannot take over signals that this process answers. Outside the main thread,
    which alone may set handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: handler for n, handler in _answered().items() if callable(handler)}
    came: list[int] = []

    def wait(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    def guarded(number: int, handler: Any) -> Any:
        return before[number] if number in before else set_handler(number, handler)

    set_handler = signal.signal
    for number in before:
        set_handler(number, wait)
    signal.signal = guarded  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler
        for number, handler in before.items():
            set_handler(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def apart() -> Iterator[None]:
    """Put processes that are forked inside into groups of their own.

    `timeout`, Slurm and shells signal a whole group. A driver is to hear it and to end what it has
    started in order: Ray that dies first leaves it waiting. What is forked without Python's hooks,
    by `subprocess` without a `preexec_fn`, stays in the group; Ray's processes have one.
    """
    _apart.set()
    try:
        yield
    finally:
        _apart.clear()


_apart = threading.Event()


def _leave_group() -> None:
    if _apart.is_set():
        os.setpgid(0, 0)


os.register_at_fork(after_in_child=_leave_group)


def _answered() -> dict[int, Any]:
    """Return the handlers of the signals that are not ignored."""
    found = {int(number): signal.getsignal(number) for number in SIGNALS}
    return {n: handler for n, handler in found.items() if handler not in (None, signal.SIG_IGN)}


def _is_lost(frame: FrameType | None) -> bool:
    """Return whether an exception raised at a frame would be lost, or leave a lock of logging."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename == logging.__file__ or code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _again(number: int) -> None:
    timer = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
