"""Cache-sized pieces of flat vectors, shared out over threads.

A piece lies inside one layout entry (its padding included) and starts a whole number of vectors
after the entry's start. Which elements take a loop's scalar end then depends on the layout alone:
the bits of a merge depend neither on the size of pieces nor on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ablate.models.layout import Layout

# Elements of a piece: its buffers stay in the cache, and calls do not outweigh their work.
PIECE = 1 << 17
DEVICE_PIECE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Elements `start` to `stop` of the flat vector, all of entry number `entry`."""

    entry: int
    start: int
    stop: int

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        return self.stop - self.start


def whole_layout(numel: int) -> list[tuple[int, int]]:
    """Return the bounds of a vector as one entry, for methods that do not look at tensors."""
    return [(0, numel)]


def entry_bounds(layout: Layout) -> list[tuple[int, int]]:
    """Return (start, stop) of each entry with the padding behind it, in elements."""
    starts = [entry.offset for entry in layout.entries]
    return list(zip(starts, [*starts[1:], layout.numel], strict=True))


def pieces_of(bounds: Sequence[tuple[int, int]], size: int) -> list[Piece]:
    """Return the pieces of at most `size` elements, in order."""
    return [
        Piece(entry=entry, start=start, stop=min(start + size, stop))
        for entry, (first, stop) in enumerate(bounds)
        for start in range(first, stop, size)
    ]


def run_pieces(
    out: torch.Tensor,
    bounds: Sequence[tuple[int, int]],
    work: Callable[[Sequence[Piece]], None],
    threads: int,
) -> None:
    """Call `work` on runs of neighbouring pieces, one run per thread, all of `out` covered."""
    pieces = pieces_of(bounds, DEVICE_PIECE if out.is_cuda else PIECE)
    share = -(-len(pieces) // (1 if out.is_cuda else threads))
    runs = [pieces[at : at + share] for at in range(0, len(pieces), max(share, 1))]

    def one(run: Sequence[Piece]) -> None:
        with torch.inference_mode():  # a thread's own switch
            work(run)

    with one_thread_each():
        if len(runs) == 1:
            one(runs[0])
        elif runs:
            with ThreadPoolExecutor(len(runs)) as pool:
                list(pool.map(one, runs))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep every torch operation on the thread that calls it; the callers are the parallel ones.

    How an operation is split over threads may change the last bit of its results.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scratch(out: torch.Tensor, pieces: Sequence[Piece], count: int) -> list[torch.Tensor]:
    """Return `count` float32 buffers on out's device, as long as the longest piece."""
    size = max(piece.numel for piece in pieces)
    return [torch.empty(size, dtype=torch.float32, device=out.device) for _ in range(count)]


def cut(vector: torch.Tensor, piece: Piece, out: torch.Tensor) -> torch.Tensor:
    """Return a piece of a vector on out's device; it is only read."""
    return vector[piece.start : piece.stop].to(out.device)
