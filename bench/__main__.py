"""Run benchmark groups: `python -m bench merge evaluate tune train`.

Prints every number beside its limit and merges them into bench.json, group by group.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from ablate.workspace import write_atomic

OUTPUT = Path("bench.json")


def main(groups: list[str]) -> int:
    """Run the named groups, or all; return 0, or 2 for an unknown group."""
    folder = Path(__file__).parent
    places = [*folder.glob("*.py"), *(init.parent for init in folder.glob("*/__init__.py"))]
    known = sorted(path.stem for path in places if not path.stem.startswith("_"))
    for group in groups:
        if group not in known:
            print(f"groups must be among {', '.join(known)}, got '{group}'", file=sys.stderr)
            return 2
    for group in groups or known:
        started = time.perf_counter()
        numbers = importlib.import_module(f"bench.{group}").run()
        print(f"{group}: {time.perf_counter() - started:.0f} s")
        for number in numbers:
            print(line(number), flush=True)
        save(group, numbers)
    return 0


def line(number: dict[str, Any]) -> str:
    """Return one number as text."""
    if number["limit"] is None:
        verdict = ""
    else:
        verdict = f"limit {number['limit']:g}: {'holds' if number['holds'] else 'MISSED'}"
    value = f"{number['value']:.4g} {number['unit']}"
    return f"  {number['name']:<36} {value:<18} {verdict:<20} {number['detail']}"


def save(group: str, numbers: list[dict[str, Any]]) -> None:
    """Replace the group's numbers in bench.json and keep the others'."""
    kept = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    others = [item for item in kept if not item["name"].startswith(f"{group}/")]
    write_atomic(OUTPUT, (json.dumps([*others, *numbers], indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
