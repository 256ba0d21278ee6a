"""What a prepared corpus is: plain values that go to and from `corpus.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ablate.errors import WorkspaceError
from ablate.workspace import Workspace, read_json

DomainKind = Literal["domain", "heldout"]


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
        """Return the corpus that `to_json` wrote; raises KeyError or TypeError for other values."""
        return cls(
            fingerprint=value["fingerprint"],
            tokenizer=TokenizerInfo(**value["tokenizer"]),
            partitions={name: _partition(info) for name, info in value["partitions"].items()},
            domains={name: _domain(info) for name, info in value["domains"].items()},
            seed=None if value["seed"] is None else TokenFile(**value["seed"]),
            seed_dropped=dict(value["seed_dropped"]),
            inputs=dict(value["inputs"]),
        )


def read_corpus(workspace: Workspace) -> Corpus | None:
    """Return the corpus prepared in a workspace, or None when there is none.

    Raises WorkspaceError when `corpus.json` is altered.
    """
    value = read_json(workspace.corpus_json)
    if value is None:
        return None
    try:
        return Corpus.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkspaceError(
            f"{workspace.corpus_json} must be as `ablate prepare` wrote it, got another "
            f"one ({type(error).__name__}: {error}); delete it and run `ablate prepare`"
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


def _partition(value: Mapping[str, Any]) -> PartitionInfo:
    fields = dict(value)
    fields["train"] = TokenFile(**fields["train"])
    fields["unit_tokens"] = tuple(fields["unit_tokens"])
    fields["unit_digests"] = tuple(fields["unit_digests"])
    return PartitionInfo(**fields)


def _domain(value: Mapping[str, Any]) -> DomainInfo:
    fields = dict(value)
    fields["tokens_file"] = TokenFile(**fields["tokens_file"])
    return DomainInfo(**fields)
