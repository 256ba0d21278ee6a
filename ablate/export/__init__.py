"""Answers written for other programs: one format, one file, one function.

`write_export` writes a format by its name; the functions give the text of one format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ablate.errors import StudyError, did_you_mean
from ablate.export.answer import Answer, Member, apportion, epochs, shares
from ablate.export.checkpoint import MakeMerge, provenance, write_checkpoint
from ablate.export.megatron import megatron_blend
from ablate.export.mergekit import MERGES, mergekit_yaml
from ablate.export.olmo_core import olmo_core_yaml
from ablate.export.weights import weights_json, weights_yaml
from ablate.models.checkpoint import TRAINING, intact_digest
from ablate.workspace import MAX_STATE_BYTES, read_small, write_atomic

CHECKPOINT = "checkpoint"

# format -> file suffix -> text of it; the first suffix is the one used for a folder
TEXTS: dict[str, dict[str, Callable[[Answer], str]]] = {
    "weights": {".json": weights_json, ".yaml": weights_yaml, ".yml": weights_yaml},
    "mergekit": {".yaml": mergekit_yaml, ".yml": mergekit_yaml},
    "olmo-core": {".yaml": olmo_core_yaml, ".yml": olmo_core_yaml},
    "megatron": {".txt": megatron_blend},
}

FORMATS: tuple[str, ...] = (CHECKPOINT, *TEXTS)


def write_export(
    answer: Answer,
    kind: str,
    to: Path,
    *,
    dtype: str = "float32",
    make: MakeMerge | None = None,
) -> Path:
    """Write `answer` in the format `kind` and return the path of what was written.

    `to` is a folder, or for the text formats a file with a suffix of that format. Nothing is done
    when the same export is there already; a checkpoint that was damaged since is written again.
    `make` makes a merge that is not linear. Raises StudyError for an unknown format or suffix, and
    when something else is in the way.
    """
    if kind not in FORMATS:
        raise StudyError(
            f"an export format must be known, got '{kind}'; {did_you_mean(kind, FORMATS)}"
        )
    if kind == CHECKPOINT:
        if not (_is_same_checkpoint(answer, to, dtype) and intact_digest(to)):
            write_checkpoint(answer, to, dtype, make)
        return to
    path = _text_path(kind, to)
    data = TEXTS[kind][path.suffix](answer).encode()
    if path.exists() and (not path.is_file() or path.read_bytes() != data):
        raise _in_the_way(path)
    write_atomic(path, data)
    return path


def _text_path(kind: str, to: Path) -> Path:
    suffixes = TEXTS[kind]
    if to.suffix in suffixes and not to.is_dir():
        return to
    if to.is_file() or (to.suffix in {".json", ".yaml", ".yml", ".txt"} and not to.is_dir()):
        raise StudyError(
            f"--to must be a folder or a file ending in {' or '.join(suffixes)} for {kind}, got "
            f"{to}; name another place"
        )
    return to / f"{kind}{next(iter(suffixes))}"


def _is_same_checkpoint(answer: Answer, folder: Path, dtype: str) -> bool:
    """Return whether the folder is this export, damaged or not; False when nothing is in it."""
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    try:
        known = json.loads(read_small(folder / TRAINING, MAX_STATE_BYTES))["export"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = None
    if known != provenance(answer, dtype)["export"]:
        raise _in_the_way(folder)
    return True


def _in_the_way(path: Path) -> StudyError:
    return StudyError(
        f"an export must not replace something else, got {path}, which exists; name another place "
        "with --to, or remove it"
    )


__all__ = [
    "FORMATS",
    "MERGES",
    "TEXTS",
    "Answer",
    "Member",
    "apportion",
    "epochs",
    "mergekit_yaml",
    "megatron_blend",
    "olmo_core_yaml",
    "shares",
    "weights_json",
    "weights_yaml",
    "write_checkpoint",
    "write_export",
]
