"""The small study, what it gives undisturbed, and the count of what was done to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disturbing import LONGER, VALIDATED, Run, injections, numbers
from tests.small_study import make_study


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and its data, never run."""
    return make_study(tmp_path_factory.mktemp("data"))


@pytest.fixture
def place(data: Path, tmp_path: Path) -> Path:
    """A fresh folder with the study and its data."""
    return Path(shutil.copytree(data, tmp_path / "study"))


@pytest.fixture(scope="session")
def undisturbed(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[str, ...]], Path]:
    """Return the workspace of a study with some overrides, run once and left in peace."""
    done: dict[tuple[str, ...], Path] = {}

    def run(overrides: tuple[str, ...] = LONGER) -> Path:
        if overrides not in done:
            root = Path(shutil.copytree(data, tmp_path_factory.mktemp("calm") / "study"))
            one = Run(root, overrides=overrides)
            one.finish()
            done[overrides] = one.work
        return done[overrides]

    return run


@pytest.fixture
def calm(undisturbed: Callable[..., Path]) -> dict[str, Any]:
    """The numbers of the undisturbed run."""
    return numbers(undisturbed(LONGER))


@pytest.fixture
def validated(undisturbed: Callable[..., Path]) -> dict[str, Any]:
    """The numbers of the undisturbed run with trained mixtures."""
    return numbers(undisturbed(VALIDATED))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the count: cases, injections, losses."""
    if not injections:
        return
    cases = [
        report
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        if "tests/faults/" in report.nodeid and report.when in ("call", "setup")
    ]
    losses = sum(not report.passed for report in cases)
    terminalreporter.section("faults")
    for kind, count in sorted(injections.items()):
        terminalreporter.line(f"{count:5d}  {kind}")
    total = sum(injections.values())
    terminalreporter.line(f"{len(cases)} cases, {total} injections, {losses} losses")
