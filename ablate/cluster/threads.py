"""Threads whose end can be waited for through Ctrl-C."""

from __future__ import annotations

import threading


class WatchedThread(threading.Thread):
    """A daemon thread that says by itself when it has ended.

    `Thread.join` that is interrupted by KeyboardInterrupt marks a thread that still runs as ended
    (its handling of bpo-45274), and `is_alive` is False from then on.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._ended = threading.Event()

    def work(self) -> None:
        """Do what the thread is for."""
        raise NotImplementedError

    def run(self) -> None:
        """Work, and say when it is over."""
        try:
            self.work()
        finally:
            self._ended.set()

    @property
    def running(self) -> bool:
        """Return whether the thread was started and has not ended."""
        return self.ident is not None and not self._ended.is_set()

    def wait(self, seconds: float) -> None:
        """Wait for the end, so long at most."""
        self._ended.wait(seconds)
