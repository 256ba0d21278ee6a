"""Which tests run in one process when several share the work (`make test` uses two)."""

from __future__ import annotations

import pytest

TOGETHER = "tests/end_to_end/"  # its files share one trained study


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and those that share a trained study."""
    for item in items:
        file = item.nodeid.split("::")[0]
        group = TOGETHER if file.startswith(TOGETHER) else file
        item.add_marker(pytest.mark.xdist_group(group))
