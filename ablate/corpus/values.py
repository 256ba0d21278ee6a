"""What a prepared corpus is: plain values that go to and from `corpus.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints

from ablate.errors import WorkspaceError
from ablate.harmless import is_name
from ablate.plain_values import typed
from ablate.workspace import Workspace, read_json

DomainKind = Literal["domain", "heldout"]
TOKEN_FILE = re.compile(r"corpus/[@A-Za-z0-9_-]+/[a-z]+\.arrow")
OUTPUT = re.compile(r"corpus/[@A-Za-z0-9_-]+/[A-Za-z0-9_-]+(\.[a-z]+)?")
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """A token file below the workspace; `digest` is the SHA-256 of its contents, not its bytes.

    Contents are the token ids as little-endian uint32, followed, in evaluation files, by the bytes
    per token in the same form.
    """

    path: str
    tokens: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class TokenizerInfo:
    """The tokenizer of a study; `vocab_size` is the highest token id plus one."""

    fingerprint: str
    vocab_size: int
    eos_token_id: int


@dataclass(frozen=True, kw_only=True)
class PartitionInfo:
    """Counts of one partition. `documents`, `tokens` and `bytes` are of the training text.

    A document that `max_tokens` cuts through counts as a whole in `documents` and `bytes`.

    `unit_tokens` and `unit_digests` have one entry per base unit (digests: SHA-256 of the token
    ids as little-endian uint32); `dropped` counts documents that were empty, not_text, duplicate
    or contaminated; `unchecked` counts those kept although they have too few words for an n-gram.
    `sources` are the places in `corpus.sources` that its documents came from; () where an older
    ablate made it.
    """

    name: str
    slug: str
    documents: int
    tokens: int
    bytes: int
    units: int
    unit_tokens: tuple[int, ...]
    unit_digests: tuple[str, ...]
    unused_tokens: int
    dropped: dict[str, int]
    unchecked: int
    heldout_documents: int
    heldout_dropped: int
    train: TokenFile
    sources: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DomainInfo:
    """The evaluated tokens of an evaluation domain, or of a partition's held-out split."""

    name: str
    kind: DomainKind
    documents: int
    tokens: int
    bytes: int
    tokens_file: TokenFile


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A prepared corpus: partitions, evaluation domains and the seed's own text.

    `fingerprint` depends on contents only; `inputs` says from what it was made, so that a rerun
    can tell whether anything changed.
    """

    fingerprint: str
    tokenizer: TokenizerInfo
    partitions: dict[str, PartitionInfo]
    domains: dict[str, DomainInfo]
    seed: TokenFile | None
    seed_dropped: dict[str, int]
    inputs: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Corpus:
        """Return the corpus that `to_json` wrote; raises ValueError for any other value."""
        corpus = typed(cls, {key: value[key] for key in get_type_hints(cls) if key in value})
        _require_sound(corpus)
        return corpus


def _require_sound(corpus: Corpus) -> None:
    """Raise ValueError where names, units or token files do not fit together."""
    for table in (corpus.partitions, corpus.domains):
        for name, info in table.items():
            if info.name != name or not is_name(name):
                raise ValueError(f"'{name[:60]}' must be the name of what stands under it")
    for part in corpus.partitions.values():
        size, there = max(part.unit_tokens, default=0), part.train.tokens
        counted = len(part.unit_tokens) == len(part.unit_digests) == part.units
        full = all(tokens == size > 0 for tokens in part.unit_tokens)
        if not (counted and full and (part.units - 1) * size < there):
            raise ValueError(f"the units of '{part.name[:60]}' must be cut from its tokens")
    files = [part.train for part in corpus.partitions.values()]
    files += [domain.tokens_file for domain in corpus.domains.values()]
    for file in [*files, *([corpus.seed] if corpus.seed else [])]:
        if not TOKEN_FILE.fullmatch(file.path) or not DIGEST.fullmatch(file.digest):
            raise ValueError(f"token files must lie under corpus/, got '{file.path[:60]}'")
    outputs = corpus.inputs.get("outputs", {})
    if not isinstance(outputs, dict) or not all(
        OUTPUT.fullmatch(name) and isinstance(facts, list) and len(facts) == 3
        for name, facts in outputs.items()
    ):
        raise ValueError("inputs.outputs must list files under corpus/")


def read_corpus(workspace: Workspace) -> Corpus | None:
    """Return the corpus prepared in a workspace, or None when there is none.

    Raises WorkspaceError when `corpus.json` is altered.
    """
    value = read_json(workspace.corpus_json)
    if value is None:
        return None
    try:
        return Corpus.from_json(value)
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"{workspace.corpus_json} must be as `ablate prepare` wrote it, got another "
            f"one ({error}); delete it and run `ablate prepare`"
        ) from error


def counts_table(corpus: Corpus) -> list[dict[str, Any]]:
    """Return one row of counts per partition, then one per evaluation domain, for printing."""
    rows: list[dict[str, Any]] = [
        {
            "name": info.name,
            "kind": "partition",
            "documents": info.documents,
            "tokens": info.tokens,
            "bytes": info.bytes,
            "units": info.units,
            "unused_tokens": info.unused_tokens,
            **info.dropped,
            "unchecked": info.unchecked,
            "heldout_documents": info.heldout_documents,
            "heldout_dropped": info.heldout_dropped,
        }
        for _, info in sorted(corpus.partitions.items())
    ]
    rows += [
        {
            "name": info.name,
            "kind": info.kind,
            "documents": info.documents,
            "tokens": info.tokens,
            "bytes": info.bytes,
        }
        for _, info in sorted(corpus.domains.items(), key=lambda item: (item[1].kind, item[0]))
    ]
    if corpus.seed is not None:
        rows.append(
            {"name": "seed", "kind": "seed", "tokens": corpus.seed.tokens, **corpus.seed_dropped}
        )
    return rows
