"""Which tests start Ray."""

from __future__ import annotations

import pytest

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
