"""A disk that is full at one write after another: each rerun goes on, and the numbers are the same.

The workspace lies on a small file system of its own, which grows from run to run.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disturbing import LONGER, Run, injections, numbers

pytestmark = pytest.mark.faults
SPACE = ("unshare", "--mount", "--map-root-user")
GROWTH = 1.7

SCRIPT = """
set -u
mount -t tmpfs -o size={first}k tmpfs work || exit 77
size={first}
while :; do
  rm -f code
  "$@"; code=$?
  echo "$size $code $(df --output=used work | tail -1)" >> codes
  if [ $code -eq 0 ]; then break; fi
  if [ $code -ne 1 ]; then exit 78; fi
  size=$(( size * {growth} / 100 + 1 ))
  if [ $size -gt 200000 ]; then exit 79; fi
  mount -o remount,size=${{size}}k work
done
cp -r work copied
"""


def may_mount(folder: Path) -> bool:
    command = [*SPACE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, check=False).returncode
    )


def test_a_disk_that_is_full_at_each_write(place: Path, calm: dict[str, Any]) -> None:
    (place / "work").mkdir()
    if not may_mount(place / "work"):
        pytest.skip("a file system of its own cannot be mounted here (unshare, tmpfs)")
    script = place / "disk.sh"
    script.write_text(SCRIPT.format(first=40, growth=round(100 * GROWTH)))
    run = Run(place, overrides=LONGER, before=[*SPACE, "bash", str(script)])
    code = run.code(seconds=1500)
    assert code == 0, (code, run.said[-3000:])
    told = [line.split() for line in (place / "codes").read_text().splitlines()]
    full = [line for line in told if line[1] == "1"]
    injections["full disk"] += len(full)
    assert len(full) >= 6, told
    said = run.said
    assert "Traceback" not in said, said[-4000:]
    assert said.lower().count("no space left") >= len(full), said[-4000:]
    assert numbers(place / "copied") == calm
