"""One measured number, as `bench.json` holds it and the command line prints it."""

from __future__ import annotations

from typing import Any


def measured(
    name: str, value: float, unit: str, limit: float | None, holds: bool, detail: str
) -> dict[str, Any]:
    """Return a number; `limit` is None where there is none, then `holds` must be True."""
    return {
        "name": name,
        "value": float(value),
        "unit": unit,
        "limit": limit,
        "holds": bool(holds),
        "detail": detail,
    }


def at_least(
    name: str, value: float, unit: str, limit: float | None, detail: str
) -> dict[str, Any]:
    """Return a number that must be at least `limit`, where there is one."""
    return measured(name, value, unit, limit, limit is None or value >= limit, detail)


def at_most(name: str, value: float, unit: str, limit: float | None, detail: str) -> dict[str, Any]:
    """Return a number that must be at most `limit`, where there is one."""
    return measured(name, value, unit, limit, limit is None or value <= limit, detail)
