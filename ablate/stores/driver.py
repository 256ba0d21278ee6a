"""One driver at a time on an object store, and its journal written while it goes on.

Stores of `pyarrow.fs` have no locks and no conditional writes. A driver writes an object of its own
below `.drivers/`, then lists them: who sees another one that lives gives way. As listings show what
was written before them (S3, GCS and Azure say so), two never both go on. A driver that stops renewing
its object for LEASE_SECONDS is dead; all times are the store's.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.errors import AblateError, RunError, WorkspaceError
from ablate.stores.mirror import (
    DRIVERS,
    JOURNAL,
    bring_records,
    is_mirrored,
    keep_records,
    location,
    machine_mark,
    pull,
    sweep,
    watched,
)
from ablate.stores.objects import Objects, objects_at

LEASE_SECONDS, RENEW_SECONDS = 60, 15.0
JOURNAL_SECONDS, RECORD_SECONDS = 2.0, 15.0
WRITING_SHARE = 0.1  # of the time goes to writing the journal again, at most, and so of the logs
TICK_SECONDS = 0.5
TRIES = 5
# Unlike CLOCK_MONOTONIC it goes on while a machine sleeps.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@contextmanager
def driving(root: Path) -> Iterator[None]:
    """Hold the store of a mirror for this driver, its state up to date at entry; a folder as it is.

    Meanwhile the journal is written to the store at most every JOURNAL_SECONDS, and the logs of
    stages every RECORD_SECONDS, or less often where that takes long; both at the end, and then
    the trackers' files. Raises WorkspaceError when another driver holds it.
    """
    if not is_mirrored(root):
        yield
        return
    objects = objects_at(location(root))
    lease = _Lease(objects, machine_mark(root))
    lease.take()
    try:
        pull(root, alone=True)
        sweep(root)
        bring_records(root)
        keeper = _Keeper(root, objects, lease)
        watched[root] = keeper.check
        keeper.start()
        try:
            yield
        finally:
            keeper.end()
            del watched[root]
        keeper.check()
    finally:
        with contextlib.suppress(RunError):  # a store that does not answer: the lease runs out
            lease.release()


class _Lease:
    """This driver's object among those of all drivers."""

    def __init__(self, objects: Objects, machine: str) -> None:
        self._objects = objects
        self._name = f"{DRIVERS}/{secrets.token_hex(8)}.json"
        self._body = {
            "process": os.getpid(),
            "host": platform.node(),
            "user": getpass.getuser(),
            "machine": machine,
            "since": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        }
        self._renewed = 0.0

    @property
    def age(self) -> float:
        """Return the seconds since it was renewed."""
        return time.clock_gettime(_CLOCK) - self._renewed

    def take(self) -> None:
        """Hold the workspace, or raise WorkspaceError that names who does."""
        for number in range(TRIES):
            self._write(drives=False)
            others = self._others()
            living = {name: body for name, body in others.items() if body is not None}
            if not living:
                for name in others:
                    self._objects.delete(name)
                self._write(drives=True)
                return
            self.release()
            held = [body for body in living.values() if body["drives"]]
            if held or number == TRIES - 1:
                raise self._refused((held or list(living.values()))[0])
            time.sleep(random.uniform(0.5, 3.0))  # both asked at once, and both gave way

    def renew(self) -> None:
        """Say that this driver lives; raise WorkspaceError when another one took over meanwhile."""
        if self._name not in self._objects.find(DRIVERS):
            raise WorkspaceError(
                f"a workspace must have one driver at a time: {self._objects.uri} was taken over "
                f"while this one did not answer for {LEASE_SECONDS} s; what it finished is kept"
            )
        self._write(drives=True)

    def release(self) -> None:
        """Let the workspace go."""
        self._objects.delete(self._name)

    def _write(self, *, drives: bool) -> None:
        now = time.clock_gettime(_CLOCK)
        self._objects.write(self._name, json.dumps({**self._body, "drives": drives}).encode())
        self._renewed = now

    def _others(self) -> dict[str, dict[str, Any] | None]:
        """Return what the other drivers say of themselves, None of those that are dead.

        One that let go since it was listed is none of them.
        """
        stats = self._objects.find(DRIVERS)
        now = stats[self._name].second
        found: dict[str, dict[str, Any] | None] = {}
        for name, stat in stats.items():
            data = None if name == self._name else self._objects.read(name)
            if data is None:
                continue
            body, age = _body(data), now - stat.second
            # Of this machine's drivers only the one that holds the mirror lives: this one.
            dead = age > LEASE_SECONDS or body["machine"] == self._body["machine"]
            found[name] = None if dead else {**body, "age": age}
        return found

    def _refused(self, body: dict[str, Any]) -> WorkspaceError:
        return WorkspaceError(
            f"a workspace must have one driver at a time: {self._objects.uri} is in use by process "
            f"{body['process']} of {body['user']} on {body['host']} since {body['since']}; wait for "
            f"it, or stop it: when it is dead, it is free in {LEASE_SECONDS - body['age'] + 1} s"
        )


class _Keeper:
    """A thread that renews the lease and writes journal and logs to the store."""

    def __init__(self, root: Path, objects: Objects, lease: _Lease) -> None:
        self._root, self._objects, self._lease = root, objects, lease
        self._file = root / JOURNAL
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._lock = threading.Lock()
        self._problem: AblateError | None = None
        self._written = len(objects.read(JOURNAL) or b"")
        self._due = self._logs_due = 0.0

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong in the thread; renew the lease where the thread came too late."""
        with self._lock:
            if self._problem is None and self._lease.age > LEASE_SECONDS:
                self._try(self._lease.renew)
        if self._problem is not None:
            raise self._problem

    def end(self) -> None:
        """Write the rest of the journal, logs and trackers' files, and stop."""
        self._stop.set()
        self._thread.join()
        if self._problem is None:
            self._try(self._write_journal)
        if self._problem is None:
            self._try(lambda: keep_records(self._root, "logs", "tracking"))

    def _work(self) -> None:
        while self._problem is None and not self._stop.wait(TICK_SECONDS):
            with self._lock:
                if self._lease.age >= RENEW_SECONDS:
                    self._try(self._lease.renew)
            if self._problem is None and time.monotonic() >= self._due:
                self._try(self._write_journal)
            if self._problem is None and time.monotonic() >= self._logs_due:
                self._try(self._write_logs)

    def _try(self, action: Any) -> None:
        try:
            action()
        except AblateError as error:
            self._problem = error

    def _write_journal(self) -> None:
        if not self._file.is_file() or self._file.stat().st_size == self._written:
            return
        started = time.monotonic()
        data = self._file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        self._objects.write(JOURNAL, whole)
        self._written = len(data)
        self._due = _next(started, JOURNAL_SECONDS)

    def _write_logs(self) -> None:
        started = time.monotonic()
        keep_records(self._root, "logs")
        self._logs_due = _next(started, RECORD_SECONDS)


def _next(started: float, least: float) -> float:
    """Return when to write again what took from `started` until now."""
    now = time.monotonic()
    return now + max(least, (now - started) / WRITING_SHARE)


def _body(data: bytes) -> dict[str, Any]:
    """Return what a driver says of itself; unknowns where that is none of ablate's."""
    body: Any = None
    with contextlib.suppress(ValueError):
        body = json.loads(data)
    unknown = dict.fromkeys(("process", "user", "host", "since", "machine"), "unknown")
    return {**unknown, "drives": True, **(body if isinstance(body, dict) else {})}
