"""Which lines of a YAML file are not explained."""

from __future__ import annotations

import re

KEY = re.compile(r"^\s*(?:- )?(?:[\w./~-]+:(?:\s|$)|\{)|^\s*- ")


def unexplained(text: str) -> list[str]:
    """Return lines with a key or an item without a comment.

    A comment stands behind the line, directly above it, or behind the line that it belongs to.
    """
    found: list[str] = []
    parents: list[tuple[int, bool]] = []  # indentation, has a comment behind it
    above, folded = False, -1
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if folded >= 0 and (indent > folded or not line.strip()):
            continue  # the lines of a folded command belong to its first
        folded = indent if line.rstrip().endswith(">-") else -1
        if line.lstrip().startswith("#") or not KEY.match(line):
            above = line.lstrip().startswith("#")
            continue
        while parents and parents[-1][0] >= indent:
            parents.pop()
        here = " # " in line or above
        if not here and not (parents and parents[-1][1]):
            found.append(line)
        parents.append((indent, here))
        above = False
    return found
