"""ablate against mergekit, which runs in its own environment with the pins beside this file.

CPU time, one thread each. `merges.py` compares merges alone; `trials.py` whole trials of a search.
The environment is made in `.bench-mergekit` at first use; MERGEKIT_PYTHON names another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ablate.models.sources import quiet_transformers
from bench.mergekit import merges, trials

HERE = Path(__file__).parent


def run() -> list[dict[str, Any]]:
    """Return the ratios of merges and of trials."""
    python = _environment()
    with quiet_transformers():  # no bar for each small checkpoint
        return [*merges.run(python), *trials.run(python)]


def _environment() -> str:
    """Return the Python that has mergekit; make its environment when there is none."""
    given = os.environ.get("MERGEKIT_PYTHON")
    if given:
        return given
    folder = Path(".bench-mergekit")
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        wanted = ["-r", str(HERE / "requirements.txt")]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / ".installed").touch()
    return str(python.absolute())
