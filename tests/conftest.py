"""Which tests start Ray, and at which priority."""

from __future__ import annotations

import os

import pytest

# Clusters that tests start work at the tests' own priority, as a driver's own Ray does: with Ray's
# nice 15 they starve on a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")

RAY = (
    "tests/end_to_end/",
    "tests/train/test_cluster.py",
    "tests/cluster_jobs/test_jobs.py",
    "tests/cluster/",
    "tests/examples/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray: it wants the cores for itself."""
    for item in items:
        if item.nodeid.startswith(RAY):
            item.add_marker(pytest.mark.ray)
