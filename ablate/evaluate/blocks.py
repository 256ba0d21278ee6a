"""Domains as blocks: windows of tokens, most of one length, grouped into even batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablate.errors import CorpusError


@dataclass(frozen=True, kw_only=True, eq=False)
class Domain:
    """The evaluated tokens of one domain.

    `tokens` has shape [n]; `token_bytes` [n] are the UTF-8 bytes that each token stands for.
    """

    name: str
    tokens: np.ndarray
    token_bytes: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Windows of one length from all domains: `tokens` int64 [windows, length].

    `domains` and `blocks` [windows] say which domain a window is of, and its place there.
    """

    tokens: np.ndarray
    domains: np.ndarray
    blocks: np.ndarray


def block_lengths(tokens: int, length: int) -> np.ndarray:
    """Return the lengths of the non-overlapping windows of `tokens` tokens, in order.

    All have `length` tokens but the last, which is left out when it has only one. The first token
    of a window is context only: a window of n scores n - 1 tokens.
    """
    whole, rest = divmod(tokens, length)
    return np.array([length] * whole + ([rest] if rest >= 2 else []), dtype=np.int64)


def scored_bytes(domain: Domain, length: int) -> np.ndarray:
    """Return the UTF-8 bytes of the scored tokens of each window, int64 [windows]."""
    sizes = block_lengths(domain.tokens.size, length)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    totals = np.concatenate([[0], np.cumsum(domain.token_bytes, dtype=np.int64)])
    return np.asarray(totals[starts[1:]] - totals[starts[:-1] + 1])


def group_blocks(domains: Sequence[Domain], length: int) -> list[Group]:
    """Return the windows of all domains, grouped by their length, the longest first.

    Raises CorpusError for a domain with fewer than two tokens.
    """
    windows: dict[int, list[tuple[np.ndarray, int, int]]] = {}
    for place, domain in enumerate(domains):
        sizes = block_lengths(domain.tokens.size, length)
        if not sizes.size:
            raise CorpusError(
                f"a domain must have at least two tokens, '{domain.name}' has "
                f"{domain.tokens.size}; give it more text or leave it out"
            )
        start = 0
        for block, size in enumerate(sizes.tolist()):
            window = domain.tokens[start : start + size]
            windows.setdefault(size, []).append((window, place, block))
            start += size
    return [
        Group(
            tokens=np.stack([window for window, _, _ in items]).astype(np.int64),
            domains=np.array([place for _, place, _ in items]),
            blocks=np.array([block for _, _, block in items]),
        )
        for _, items in sorted(windows.items(), reverse=True)
    ]
