"""Peak memory of a few lines of Python, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# VmHWM begins at exec; ru_maxrss would begin with what the test's own process holds.
TAIL = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_of(code: str, *arguments: str | Path, seconds: float = 240) -> tuple[str, float]:
    """Return the last line that `code` prints and the peak resident megabytes of its process."""
    found = subprocess.run(
        [sys.executable, "-c", code + TAIL, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=seconds, cwd=ROOT,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    *_, word, peak = found.stdout.strip().splitlines()
    return word, int(peak) / 1024
