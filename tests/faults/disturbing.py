"""Runs of `ablate` that are disturbed, and the numbers by which they are compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from ablate.workspace import file_digest

REPOSITORY = Path(__file__).parents[2]
SECONDS = ("merge_seconds", "evaluate_seconds")
# More and smaller steps than the small study's, so that there are moments to disturb.
LONGER = (
    "train.batch_tokens=128",
    "evaluate.tokens_per_domain=4000",
)
VALIDATED = (*LONGER, "validate={mixtures: 3}")
CLUSTER = """
cpus: 2
train: {checkpoint_seconds: 0.3, max_failures: 20}
trial: {retries: 20}
"""

_numbers = count()
injections: Counter[str] = Counter()
"""What was done to runs, by its kind; a case that loses nothing counts its own."""


def numbers(work: Path) -> dict[str, Any]:
    """Return what must be the same: every row without its seconds, every model's weights."""
    table = pq.read_table(work / "trials.parquet").to_pylist()
    return {
        "rows": [{k: v for k, v in row.items() if k not in SECONDS} for row in table],
        "weights": {
            folder.name: file_digest(folder / "model.safetensors")
            for folder in sorted((work / "models").iterdir())
            if not folder.name.startswith(".")
        },
    }


class Run:
    """A driver in a process of its own, in a session of its own: Ctrl-C reaches only it."""

    def __init__(
        self,
        root: Path,
        verb: str = "run",
        overrides: Sequence[str] = LONGER,
        *,
        before: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        cluster: str = CLUSTER,
    ) -> None:
        self.work = root / "work"
        file = root / "cluster.yaml"
        file.write_text(cluster)
        self.errors = root / f"stderr-{next(_numbers)}.txt"
        command = [*before, sys.executable, "-m", "ablate", verb, str(root / "study.yaml")]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        with self.errors.open("w") as stream:
            self.process = subprocess.Popen(
                [*command, "--cluster", str(file), *overrides],
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
                cwd=root,
                start_new_session=True,
                # Also when the tests run in the background, where Ctrl-C is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        return self.errors.read_text(errors="replace")

    def wait_until(self, reached: Callable[[], bool], seconds: float = 300) -> None:
        """Wait for a moment of the run; it must come before the end."""
        end = time.monotonic() + seconds
        while not reached():
            assert not self.ended, f"ended before the moment came: {self.said[-2000:]}"
            assert time.monotonic() < end, f"the moment did not come: {self.said[-2000:]}"
            time.sleep(0.02)

    def send(self, number: int) -> None:
        injections[signal.Signals(number).name + " to a driver"] += 1
        self.process.send_signal(number)

    def code(self, seconds: float = 900) -> int:
        """Wait for the end and return the exit code; what it had started may live on for a moment."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for process in [*self.children(), self.process]:
                process.kill()
            pytest.fail(f"a run did not end in {seconds:.0f} s: {self.said[-2000:]}")

    def finish(self) -> None:
        """Wait for a good end."""
        code = self.code()
        assert code == 0, self.said[-3000:]

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill_children(self, *names: str, most: int = 1) -> int:
        """Kill processes of this run with SIGKILL, those whose title starts with a name."""
        killed = 0
        for child in self.children():
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith(names) and killed < most:
                child.kill()
                killed += 1
                injections[f"SIGKILL to {title.split('(')[0].split('::')[-1].split('.')[0]}"] += 1
        return killed


def lines(*patterns: Path) -> int:
    """Return how many lines the files hold together; a pattern's last part may have a star."""
    files = [file for one in patterns for file in one.parent.glob(one.name)]
    return sum(file.read_bytes().count(b"\n") for file in files if file.is_file())
