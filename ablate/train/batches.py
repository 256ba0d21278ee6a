"""The order of training sequences: a pure function of (random seed, pass).

The tokens of a run are cut into windows of `length`; what is left at the end is dropped. A pass
visits every window once in a new order, and passes follow each other without a seam: optimizer
step t takes the next `batch` windows of that endless stream, so no window is lost at a pass's end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ablate.errors import CorpusError

Tokens = npt.NDArray[np.unsignedinteger]


def window_order(rng_seed: int, round_: int, windows: int) -> npt.NDArray[np.int64]:
    """Return the order `[windows]` of pass `round_`.

    Built from PCG64's raw words, whose stream NumPy keeps stable between versions (its
    `permutation` is not covered by that promise).
    """
    words = np.random.PCG64(np.random.SeedSequence([rng_seed, round_])).random_raw(windows)
    return np.argsort(words, kind="stable")


class Windows:
    """Windows of `length` tokens over slices that are read as if joined end to end."""

    def __init__(self, slices: Sequence[Tokens], length: int, rng_seed: int, name: str) -> None:
        """Raise CorpusError when there is not even one whole window."""
        self.length = length
        self.rng_seed = rng_seed
        self._slices = list(slices)
        self._starts = np.concatenate([[0], np.cumsum([len(piece) for piece in slices])])
        self.tokens = int(self._starts[-1])
        self.count = self.tokens // length
        self.dropped_tokens = self.tokens - self.count * length
        self._round = -1
        self._order = np.empty(0, dtype=np.int64)
        if self.count == 0:
            raise CorpusError(
                f"{name} must have at least one sequence of {length} tokens, got {self.tokens} "
                "tokens; lower train.sequence_length, or raise corpus.unit_tokens"
            )

    def highest(self) -> int:
        """Return the largest token id."""
        return max(int(piece.max()) for piece in self._slices if len(piece))

    def batch(self, step: int, size: int, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Return windows `first` to `stop` of the `size` windows of step `step`.

        Token ids, shape `[stop - first, length]`.
        """
        places = range(step * size + first, step * size + stop)
        return np.stack([self._window(self._at(place)) for place in places])

    def _at(self, place: int) -> int:
        round_, position = divmod(place, self.count)
        if round_ != self._round:
            self._order = window_order(self.rng_seed, round_, self.count)
            self._round = round_
        return int(self._order[position])

    def _window(self, index: int) -> npt.NDArray[np.int64]:
        start, stop = index * self.length, (index + 1) * self.length
        piece = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = int(self._starts[piece])
            part = self._slices[piece][start - offset : stop - offset]
            parts.append(part)
            start += len(part)
            piece += 1
        return np.concatenate(parts).astype(np.int64)
