"""Mixtures as people write them: a list of partitions, or a file of weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import StudyError, did_you_mean
from ablate.mixture import Mixture, member_mixture
from ablate.settings import MAX_FILE_BYTES, parse_yaml, shortened
from ablate.workspace import read_small

MOST = 1e15
"""Shares, tokens and counts are below it; sums of more could overflow."""

_SUFFIXES = (".json", ".yaml", ".yml")


def parse_mixture(
    text: str, *, known: Collection[str], units: Mapping[str, int], weighting: str
) -> Mixture:
    """Return the mixture that `text` names: "law, math", or a .json or .yaml file of weights.

    A member list is weighted by `weighting` ("micro" or "macro"). A partition whose name has a
    comma is found as it is, or can be written in double quotes. A file holds {partition: weight},
    or that under the key `weights`, as `export --as weights` writes it.
    Raises StudyError when a name is unknown or double, or the file is not such a file.
    """
    text = text.strip()
    if text in known:
        return member_mixture([text], units, weighting)
    if text.endswith(_SUFFIXES):
        return read_weights(Path(text), known)
    names = split_names(text, known)
    for name in names:
        if name not in known:
            raise StudyError(
                f"a mixture must name partitions of the study, got '{name}'; "
                f"{did_you_mean(name, known)}"
            )
        if names.count(name) > 1:
            raise StudyError(
                f"a mixture must name a partition once, got '{name}' twice; name it once"
            )
    return member_mixture(names, units, weighting)


def split_names(text: str, known: Collection[str]) -> list[str]:
    """Return the names in a comma-separated list; a known name that has commas is kept whole.

    Raises StudyError when a name is empty or a quotation mark is not closed.
    """
    names: list[str] = []
    rest = text.strip()
    while True:
        name, rest, ended = _first_name(rest, known)
        if not name:
            raise StudyError(
                f"a mixture must be a list of partitions such as \"law, math\", got '{text}'; "
                "leave no name empty"
            )
        names.append(name)
        if ended:
            return names


def _first_name(text: str, known: Collection[str]) -> tuple[str, str, bool]:
    """Return (first name, what follows its comma, whether it was the last)."""
    if text.startswith('"'):
        name, mark, rest = text[1:].partition('"')
        rest = rest.lstrip()
        if not mark or (rest and not rest.startswith(",")):
            raise StudyError(
                f"quotation marks must close at the end of a name, got '{text}'; "
                'write "one, name", other'
            )
        return name, rest[1:].lstrip(), not rest
    for name in sorted(known, key=len, reverse=True):
        after = text[len(name) :].lstrip() if text.startswith(name) else "?"
        if not after or after.startswith(","):
            return name, after[1:].lstrip(), not after
    name, comma, rest = text.partition(",")
    return name.strip(), rest.lstrip(), not comma


def read_weights(path: Path, known: Collection[str] | None = None) -> Mixture:
    """Return the mixture in a .json or .yaml file of weights.

    Raises StudyError when it cannot be read, is not {partition: number}, or names a partition that
    is not `known`, be its weight zero.
    """
    try:
        content = read_small(path, MAX_FILE_BYTES).decode()
        tree: Any = _parsed(content, path.suffix)
    except OSError as error:
        raise StudyError(
            f"a file of weights must be readable, got {path}: {error.strerror}; check the path"
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise StudyError(
            f"a file of weights must be {path.suffix.lstrip('.').upper()}, got {path}: {error}; "
            'write {"partition": share, ...}'
        ) from error
    if isinstance(tree, dict) and isinstance(tree.get("weights"), dict):
        tree = tree["weights"]
    wrong: Any = {"all of it": tree}
    if isinstance(tree, dict):
        wrong = {name: value for name, value in tree.items() if not _is_number(value)}
    if wrong:
        name, value = next(iter(wrong.items()))
        raise StudyError(
            f"a file of weights must map partitions to numbers, got {shortened(value)} for "
            f'{name} in {path}; write {{"partition": share, ...}}'
        )
    large = [name for name, value in tree.items() if abs(value) > MOST]
    if large:
        raise StudyError(
            f"weights must be at most {MOST:g}, got more for partition '{large[0]}' in {path}; "
            "give each partition a share such as 0.25"
        )
    weights = {str(name): float(value) for name, value in tree.items()}
    if known is not None:
        Mixture.uniform(weights).require_known(known)
    return Mixture.of(weights)


def _parsed(content: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(content, object_pairs_hook=_once)
    return parse_yaml(content)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' given twice")
    return dict(pairs)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
