"""The small study, prepared once for all files, and run once for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_study import make_study

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study and its data."""
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def ran(folder: Path) -> Iterator[Path]:
    """The same folder after `ablate run`, by way of the command line's own entry."""
    from ablate import engine
    from ablate.cluster.session import session
    from ablate.resources import Cluster
    from ablate.study import load_study

    with session(Cluster(cpus=2)):
        engine.run(load_study(folder / "study.yaml"), cluster=Cluster(cpus=2))
        yield folder
