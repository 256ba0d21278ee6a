"""Waiting for lanes through Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ablate.cluster.threads import WatchedThread


class Sleeper(WatchedThread):
    """Works until it is told to end."""

    def __init__(self) -> None:
        super().__init__("sleeper")
        self.told = threading.Event()

    def work(self) -> None:
        self.told.wait(30)


def test_an_interrupted_wait_does_not_take_a_running_thread_for_ended() -> None:
    sleeper = Sleeper()
    assert not sleeper.running
    sleeper.start()
    alarm = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sleeper.wait(20)
    finally:
        signal.signal(signal.SIGINT, before)
        alarm.join()
    assert sleeper.running
    sleeper.told.set()
    end = time.monotonic() + 10
    while sleeper.running and time.monotonic() < end:
        sleeper.wait(1)
    assert not sleeper.running
