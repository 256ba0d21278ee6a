"""Word n-grams as 64-bit numbers, and how much of a document stands in a protected text.

Words are lower-cased and split at white space. Hashes are the same in every process.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pandas.util import hash_array

Grams = npt.NDArray[np.uint64]

# An odd multiplier (of Knuth's 64-bit linear congruential generator) and the finalizer of
# SplitMix64 (Steele, Lea, Flood 2014): word hashes are random, so sums of them are as well.
MULTIPLIER = np.uint64(6364136223846793005)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


def ngram_hashes(text: str, n: int) -> Grams:
    """Return the hash of each n-gram in order, `[max(words - n + 1, 0)]`."""
    words = text.lower().split()
    count = len(words) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    hashes = hash_array(np.array(words, dtype=object), categorize=False)
    total = np.zeros(count, np.uint64)
    for offset in range(n):
        total = total * MULTIPLIER + hashes[offset : offset + count]
    total = (total ^ (total >> np.uint64(30))) * MIX_1
    total = (total ^ (total >> np.uint64(27))) * MIX_2
    return total ^ (total >> np.uint64(31))


def gather(parts: Iterable[Grams]) -> Grams:
    """Return the sorted distinct hashes of several arrays."""
    found = list(parts)
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def find(grams: Grams, protected: Grams) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Return for each n-gram whether it stands in the sorted `protected`, and where."""
    if not len(protected):
        return np.zeros(len(grams), np.bool_), np.zeros(len(grams), np.intp)
    places = np.searchsorted(protected, grams)
    places[places == len(protected)] = 0
    return protected[places] == grams, places


def overlap(grams: Grams, protected: Grams) -> float:
    """Return the share of a document's n-grams that stand in the sorted `protected`; 0 of none."""
    if not len(grams):
        return 0.0
    return float(find(grams, protected)[0].mean())
