"""Statistics of one model as one safetensors file, with a digest of what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ablate.errors import CheckpointError, WorkspaceError
from ablate.merge.method import Statistics
from ablate.merge.statistics.gram_matrices import Grams
from ablate.models.tensor_file import read_header, read_into
from ablate.plain_values import typed
from ablate.stores import fetched, kept
from ablate.workspace import SCHEMA_VERSION, temporary_folder

FISHER_TENSOR = "fisher"
HEADER_KEY = "ablate"
MAX_HEADER_TEXT = 64 << 20


def write_statistics(
    path: Path, kind: Statistics, statistics: torch.Tensor | Grams, meta: Mapping[str, Any]
) -> str:
    """Write a Fisher diagonal or Gram matrices to `path`, atomically; return their digest.

    `meta` is plain JSON: what the statistics were gathered from (the model's digest, the tokens').
    A Gram matrix that several layers share is stored once. The digest is the SHA-256 of names,
    shapes, bytes and `meta`.
    """
    tensors, places = _tensors(statistics)
    body = {"schema_version": SCHEMA_VERSION, "kind": kind, "meta": dict(meta), **places}
    digest = _digest(tensors, body)
    text = json.dumps({**body, "digest": digest}, sort_keys=True)
    with temporary_folder(path.parent) as folder:
        save_file(tensors, folder / path.name, metadata={"format": "pt", HEADER_KEY: text})
        (folder / path.name).replace(path)
    kept(path)
    return digest


def read_statistics(
    path: Path, kind: Statistics, expected: Mapping[str, Any]
) -> tuple[torch.Tensor | Grams, dict[str, Any]] | None:
    """Return (statistics, meta) of a file that `write_statistics` wrote; None when there is none.

    The meta must hold every item of `expected`. Nothing is unpickled; header and sizes are checked
    before anything is read, every value must be finite, and the digest must fit.

    Raises WorkspaceError when the file is cut short or altered, of another kind, or was gathered
    from something else than expected.
    """
    if not fetched(path).exists():
        return None
    try:
        stored = read_header(path)
        tensors = {}
        for name, place in stored.items():
            values = np.empty(place.shape, dtype=np.float32)
            read_into(place, values.reshape(-1))
            tensors[name] = torch.from_numpy(values)
    except CheckpointError as error:
        raise WorkspaceError(
            f"statistics must be as they were written: {error}; delete {path} to have them "
            "gathered again"
        ) from error
    raw = _header(path)
    if _digest(tensors, {k: v for k, v in raw.items() if k != "digest"}) != raw.get("digest"):
        raise _altered(path, "its contents do not fit its digest")
    try:
        header = typed(_Header, raw)
        found = _statistics(tensors, header)
    except (ValueError, KeyError) as error:
        raise _altered(path, f"its header does not describe it: {error}") from error
    _require_expected(path, {"kind": kind, **expected}, {"kind": header.kind, **header.meta})
    return found, header.meta


@dataclass(frozen=True, kw_only=True)
class _Header:
    schema_version: int
    kind: str
    meta: dict[str, Any]
    digest: str
    shared: dict[str, str] = field(default_factory=dict)
    input_first: tuple[str, ...] = ()


def _tensors(
    statistics: torch.Tensor | Grams,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if isinstance(statistics, torch.Tensor):
        return {FISHER_TENSOR: statistics.contiguous()}, {}
    first: dict[int, str] = {}
    shared = {
        name: first.setdefault(gram.data_ptr(), name)
        for name, gram in sorted(statistics.matrices.items())
    }
    tensors = {name: statistics.matrices[name].contiguous() for name in sorted(first.values())}
    return tensors, {"shared": shared, "input_first": sorted(statistics.input_first)}


def _statistics(tensors: Mapping[str, torch.Tensor], header: _Header) -> torch.Tensor | Grams:
    if header.kind == "fisher":
        return tensors[FISHER_TENSOR]
    return Grams(
        matrices={name: tensors[leader] for name, leader in header.shared.items()},
        input_first=frozenset(header.input_first),
    )


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as stream:
        text = (stream.metadata() or {}).get(HEADER_KEY, "")
    try:
        header = json.loads(text) if len(text) <= MAX_HEADER_TEXT else None
    except (ValueError, RecursionError) as error:
        raise _altered(path, "its header is not JSON") from error
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        raise _altered(path, f"its header is not of schema {SCHEMA_VERSION}")
    return header


def _digest(tensors: Mapping[str, torch.Tensor], body: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"\0{name}{list(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _require_expected(path: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    wrong = [key for key in expected if found.get(key) != expected[key]]
    if wrong:
        key = wrong[0]
        raise WorkspaceError(
            f"statistics must have {key} = {expected[key]!r}: {path} has {found.get(key)!r}; "
            "delete it to have them gathered again"
        )


def _altered(path: Path, reason: str) -> WorkspaceError:
    return WorkspaceError(
        f"statistics must be as they were written: {path} is altered ({reason}); delete it to have "
        "them gathered again"
    )
