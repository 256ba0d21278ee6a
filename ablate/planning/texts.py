"""The source files behind a study: `prepare` reads each in one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.corpus.scan import Kind
from ablate.corpus.source_files import is_compressed
from ablate.corpus.survey import COMPRESSION
from ablate.planning.partitions import PartitionPlan


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A file for one use: the tokens of all its text, and those that are trained on."""

    path: str
    kind: Kind
    tokens: int
    kept: int


def text_files(
    inputs: Mapping[str, Any],
    parts: Sequence[PartitionPlan],
    seed_tokens: int,
    bytes_per_token: float,
) -> tuple[TextFile, ...]:
    """Return the files that `inputs` (`corpus.inputs.inputs_of`) name, in the order of the tasks.

    Tokens are estimates. The training tokens of a partition that its source names, those of all
    others, and the seed's `seed_tokens` are shared out among their files by size. A data set of the
    hub, whose size is not known, has the tokens that are kept.
    """
    uses = [(kind, name, path) for kind, name, path in inputs["uses"]]
    sizes = [_text_bytes(path, inputs["files"]) for _, _, path in uses]
    kept = _kept(uses, parts, seed_tokens)
    groups: dict[tuple[Kind, str], list[int]] = {}
    for place, (kind, name, _) in enumerate(uses):
        groups.setdefault((kind, name), []).append(place)
    found: dict[int, TextFile] = {}
    for group, places in groups.items():
        whole = sum(sizes[place] for place in places)
        for place in places:
            share = sizes[place] / whole if whole else 1 / len(places)
            own = round(share * kept.get(group, 0))
            kind, _, path = uses[place]
            every = max(own, round(sizes[place] / bytes_per_token))
            found[place] = TextFile(path=path, kind=kind, tokens=every, kept=own)
    return tuple(found[place] for place in range(len(uses)))


def _kept(
    uses: Sequence[tuple[Kind, str, str]], parts: Sequence[PartitionPlan], seed_tokens: int
) -> dict[tuple[Kind, str], int]:
    """Return the training tokens by kind and name; sources that name none share the rest."""
    named = {name for kind, name, _ in uses if kind == "partition" and name}
    kept: dict[tuple[Kind, str], int] = {
        (kind, name): seed_tokens for kind, name, _ in uses if kind == "seed"
    }
    for part in parts:
        group: tuple[Kind, str] = ("partition", part.name if part.name in named else "")
        kept[group] = kept.get(group, 0) + part.tokens
    return kept


def _text_bytes(path: str, files: Mapping[str, Sequence[int]]) -> float:
    """Return the bytes of a file's text, 0 where its size is not known."""
    if path not in files:
        return 0.0
    packed = is_compressed(path) or Path(path).suffix.lower() == ".parquet"
    return files[path][0] * (COMPRESSION if packed else 1.0)
