"""How many examples a fuzz test runs, and a count of those that ran.

ABLATE_FUZZ=100 runs a hundred times as many as `make test` does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("ABLATE_FUZZ", "1"))
COUNTS: Counter[str] = Counter()


def examples(count: int) -> Callable[[Any], Any]:
    """Return the settings of a fuzz test that runs `count` examples in `make test`."""
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


STRANGE = (
    None, True, False, -1, 0, 1, 2**63, 2**64, 10**400, 1e308, float("nan"), float("inf"), "", " ",
    "../../etc/x", "/etc/passwd", "/dev/zero", "\x00", "\x1b[2J", "\ud800", "<script>", "[bold]x",
    "x" * 10_000, "0", "1e999", [], {}, [[]], [None], {"": None}, [{}], {"a": [1]}, [[["a", 1], 2]],
)  # fmt: skip


def strange_values() -> st.SearchStrategy[Any]:
    """Values of every JSON type, most of them wrong wherever they stand."""
    leaves = st.sampled_from(STRANGE) | st.integers() | st.floats() | st.text(max_size=20)
    return leaves | st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    )


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a tree of objects and lists, the root left out."""
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    found = [path] if path else []
    for key, value in items:
        found += places(value, (*path, key))
    return found


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a tree with one value replaced."""
    head, *rest = path
    new = changed(tree[head], tuple(rest), value) if rest else value
    if isinstance(tree, dict):
        return {**tree, head: new}
    return [*tree[:head], new, *tree[head + 1 :]]


def mutated_bytes(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a sound file with some cut, overwritten, repeated or put in."""
    place = st.integers(0, len(data))
    edit = st.tuples(
        place, st.sampled_from(["cut", "set", "insert", "repeat"]), st.binary(max_size=9)
    )
    return st.lists(edit, min_size=1, max_size=4).map(lambda edits: _edited(data, edits))


def _edited(data: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    for at, kind, piece in edits:
        if kind == "cut":
            data = data[:at]
        elif kind == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        else:
            data = data[:at] + data[max(at - 40, 0) :]
    return data
