"""Which tests start Ray, and which may not be parted when several processes share the work."""

from __future__ import annotations

import pytest

RAY = (
    "tests/end_to_end/",
    "tests/train/test_cluster.py",
    "tests/cluster_jobs/test_jobs.py",
    "tests/cluster/",
    "tests/examples/",
)
TOGETHER = "tests/corpus_embedded/"  # its files share one corpus, which takes long to make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts Ray (it wants the cores for itself); keep a file in one process."""
    for item in items:
        file = item.nodeid.split("::")[0]
        group = TOGETHER if file.startswith(TOGETHER) else file
        item.add_marker(pytest.mark.xdist_group(group))
        if file.startswith(RAY):
            item.add_marker(pytest.mark.ray)
