"""Signals at the worst moments: none is lost, and none leaves a lock behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from ablate.interrupts import apart, heard, held


@pytest.fixture(autouse=True)
def default_answers() -> Iterator[None]:
    """Both signals as a program in the foreground has them; jobs of a shell ignore Ctrl-C."""
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


EITHER = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])


def wait_long() -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.01)


class Ending:
    """Something whose end brings a signal."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def in_a_finalizer(number: int) -> None:
    Ending(number)


def in_a_callback(number: int) -> None:
    thing = logging.Handler()
    kept = weakref.ref(thing, lambda _: signal.raise_signal(number))
    del thing
    assert kept() is None


def in_logging(number: int) -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(number)

    logger = logging.Logger("signals")
    logger.addHandler(Raises())
    logger.error("now")


@EITHER
@pytest.mark.parametrize("where", [in_a_finalizer, in_a_callback, in_logging])
def test_a_signal_that_would_be_lost_comes_again(
    number: signal.Signals, where: Callable[[int], None]
) -> None:
    before = signal.getsignal(number)
    # In a callback only Python itself knows that the exception was lost: it is told at once.
    with pytest.raises(KeyboardInterrupt), heard() as came:
        where(number)
        wait_long()
    assert came == [number]
    assert signal.getsignal(number) == before


@EITHER
def test_a_signal_waits_for_the_end_and_a_second_one_does_not(number: signal.Signals) -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt), heard() as came, held():
        signal.raise_signal(number)
        steps.append("went on")
    assert steps == ["went on"] and came == [number]
    with pytest.raises(KeyboardInterrupt), heard(), held():
        signal.raise_signal(number)
        signal.raise_signal(number)
        steps.append("never")
    assert steps == ["went on"]


def test_handlers_of_others_do_not_replace_ours_meanwhile() -> None:
    calls: list[int] = []
    with heard() as came:
        with pytest.raises(KeyboardInterrupt), held():
            signal.signal(signal.SIGTERM, lambda number, _: calls.append(number))
            signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM] and not calls
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard() as came, held():
            signal.raise_signal(signal.SIGINT)
        assert came == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_forked_apart_is_in_a_group_of_its_own() -> None:
    """With a `preexec_fn`, as Ray starts its own processes; outside the block nothing changes."""

    def group() -> int:
        command = [sys.executable, "-c", "import os; print(os.getpgrp())"]
        started = subprocess.run(command, preexec_fn=int, capture_output=True, check=True)
        return int(started.stdout)

    with apart():
        assert group() != os.getpgrp()
    assert group() == os.getpgrp()
