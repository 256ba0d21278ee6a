"""A Ray head with its dashboard and job server on this machine, which asks for a token."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest

PACKAGE = Path(__file__).parents[2]


def clean_environment(home: Path) -> dict[str, str]:
    """Return this process's environment without Ray's settings, with another home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "HOME": str(home), "PATH": path, "PYTHONPATH": str(PACKAGE)}


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where the job server is, the token that it asks for, and an environment that has it."""

    address: str
    token: str
    home: Path
    environment: dict[str, str] = field(repr=False)

    def ablate(
        self, folder: Path, *words: str, variables: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error of `ablate words...` in a folder.

        `variables` stand in for the token's own.
        """
        environment = self.environment
        if variables is not None:
            environment = {**clean_environment(self.home), **variables}
        done = subprocess.run(
            [sys.executable, "-m", "ablate", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


def free_ports(count: int) -> list[int]:
    """Return ports below those that the system hands out: a head takes them seconds later."""
    rng = random.SystemRandom()
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            one = stack.enter_context(socket.socket())
            port = rng.randrange(20_000, 32_000)
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    return found


@contextmanager
def running_head(home: Path) -> Iterator[Head]:
    """Yield a head of this machine's own; it is stopped at the end, with all below it."""
    place = tempfile.mkdtemp(prefix="head-")  # short: sockets below it have long names
    port, dashboard, agent, client, metrics = free_ports(5)
    token = secrets.token_hex(16)
    environment = clean_environment(home) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    words = (
        "start --head --block --node-ip-address 127.0.0.1 --dashboard-host 127.0.0.1 --num-cpus 2 "
        f"--object-store-memory 200000000 --disable-usage-stats --temp-dir {place} --port {port} "
        f"--dashboard-port {dashboard} --dashboard-agent-listen-port {agent} "
        f"--ray-client-server-port {client} --metrics-export-port {metrics}"
    )
    with Path(place, "head.log").open("w") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), *words.split()],
            # Without PYTHONPATH: jobs have the code that is sent.
            env={name: value for name, value in environment.items() if name != "PYTHONPATH"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(dashboard, process, Path(place, "head.log"))
        yield Head(
            address=f"http://127.0.0.1:{dashboard}", token=token, home=home, environment=environment
        )
    finally:
        stop(process)
        shutil.rmtree(place, ignore_errors=True)


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the dashboard answers: it asks for a token (401)."""
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/api/version")
            if connection.getresponse().status == 401:
                return
        time.sleep(0.2)
    pytest.fail(f"the head did not come up: {log.read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the head and every process below it, and no other."""
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([*below, psutil.Process(process.pid)], timeout=15)
        for one in alive:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait(timeout=15)
