"""A wall clock that jumps while a study runs: nothing hangs on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disturbing import REPOSITORY, Run, injections, numbers

pytestmark = pytest.mark.faults
JUMPING = Path(__file__).parent / "jumping_clock"


def test_a_clock_that_jumps_changes_no_number(place: Path, calm: dict[str, Any]) -> None:
    run = Run(place, environment={"PYTHONPATH": os.pathsep.join([str(JUMPING), str(REPOSITORY)])})
    run.finish()
    injections["a clock that jumps by days"] += 1
    assert numbers(run.work) == calm
