"""Which documents are kept, and for what: decided once, from the scans of all files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablate.corpus.ngrams import Grams, gather
from ablate.corpus.scan import Kind, Marks, Piece, StreamScan, is_heldout
from ablate.errors import CorpusError
from ablate.workspace import slug

DROP, TRAIN, HELDOUT = 0, 1, 2

Stream = tuple[Kind, str]
Fates = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class StreamChoice:
    """One stream over all its files, in order: `fates[piece number][documents]`, and counts."""

    fates: dict[int, Fates]
    empty: int
    not_text: int
    duplicates: int
    protected: Grams


def choose(
    pieces: Sequence[Piece], scans: Sequence[dict[str, StreamScan]], heldout: float
) -> dict[Stream, StreamChoice]:
    """Return the choice for every stream, in the order of their first documents.

    Of documents with the same text the first of a stream stays. A partition's document is held out
    by the hash of its text. Raises CorpusError for names that clash.
    """
    streams: dict[Stream, list[int]] = {}
    for piece, scan in zip(pieces, scans, strict=True):
        for name in scan:
            streams.setdefault((piece.kind, name), []).append(piece.number)
    _check_names(streams, pieces, scans)
    return {
        stream: _choose(stream, numbers, [scans[number][stream[1]] for number in numbers], heldout)
        for stream, numbers in streams.items()
    }


def _choose(
    stream: Stream, numbers: list[int], scans: list[StreamScan], heldout: float
) -> StreamChoice:
    marks = np.concatenate([scan.marks for scan in scans])
    first = first_occurrences(marks)
    fates = np.where(first, TRAIN, DROP).astype(np.int8)
    if stream[0] == "partition":
        fates[first & is_heldout(marks, heldout)] = HELDOUT
    ends = np.cumsum([len(scan.marks) for scan in scans])
    return StreamChoice(
        fates=dict(zip(numbers, np.split(fates, ends[:-1]), strict=True)),
        empty=sum(scan.empty for scan in scans),
        not_text=sum(scan.not_text for scan in scans),
        duplicates=int((~first).sum()),
        protected=gather(scan.protected for scan in scans),
    )


def first_occurrences(marks: Marks) -> npt.NDArray[np.bool_]:
    """Return for each mark, `[documents]`, whether no earlier one is equal."""
    first = np.ones(len(marks), np.bool_)
    if len(marks) > 1:
        order = np.lexsort((marks[:, 1], marks[:, 0]))  # stable: equal marks stay in their order
        ordered = marks[order]
        first[order[1:]] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return first


def _check_names(
    streams: dict[Stream, list[int]],
    pieces: Sequence[Piece],
    scans: Sequence[dict[str, StreamScan]],
) -> None:
    domains = {name for kind, name in streams if kind == "domain"}
    for (kind, name), numbers in streams.items():
        if kind != "partition":
            continue
        if name in domains:
            raise CorpusError(
                f"a partition and an evaluation domain must not share a name, got '{name}'; "
                "rename one of them"
            )
        sources = sorted({pieces[number].source for number in numbers})
        if len(sources) > 1:
            raise CorpusError(
                f"two partitions must not have one name, got '{name}' from corpus.sources."
                f"{sources[0]} and corpus.sources.{sources[1]}; rename one, or read both with one "
                "source"
            )
        values = {scans[number][name].values for number in numbers}
        if len(values) > 1:
            raise CorpusError(
                f"two partitions must not have one name, got '{name}' for "
                f"{' and '.join(str(list(value)) for value in sorted(values))}; rename a value"
            )
    _check_folders(streams)


def _check_folders(streams: dict[Stream, list[int]]) -> None:
    folders: dict[str, str] = {}
    for kind, name in streams:
        if kind == "seed":
            continue
        other = folders.setdefault(slug(name).lower(), name)
        if other != name:
            raise CorpusError(
                f"names must differ in more than upper and lower case, got '{other}' and '{name}'; "
                "rename one: they would share a folder on some disks"
            )


def parts_of(
    choices: Mapping[Stream, StreamChoice], kind: Kind
) -> Iterator[tuple[str, StreamChoice]]:
    """Yield the streams of one kind with their names."""
    return ((name, choice) for (found, name), choice in choices.items() if found == kind)
