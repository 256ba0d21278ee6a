"""From summed negative log-likelihoods of blocks to a domain's score."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

GROUPS = 64  # most groups of windows for which sums are kept: the sample of paired tests


@dataclass(frozen=True, kw_only=True)
class DomainScore:
    """How well a model predicts one domain.

    `nats` is the summed negative log-likelihood of the `tokens` scored tokens, which stand for
    `bytes` bytes of text; `stderr` the standard error of `loss`, nats per token (0 for one block).
    `groups` are the nats of at most `GROUPS` runs of neighbouring blocks, in order (`group_starts`),
    as float32: what paired comparisons of two models are made of; empty where they were not kept.
    """

    nats: float
    tokens: int
    bytes: int
    stderr: float
    groups: tuple[float, ...] = ()

    @property
    def loss(self) -> float:
        """Return nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Return exp(loss), infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 709 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Return bits per UTF-8 byte; NaN when the tokens stand for no bytes."""
        return self.nats / (math.log(2) * self.bytes) if self.bytes else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        packed = np.array(self.groups, dtype="<f4").tobytes()
        return {**asdict(self), "groups": base64.b64encode(packed).decode()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DomainScore:
        """Return the score that `to_json` wrote."""
        return cls(
            nats=float(value["nats"]),
            tokens=int(value["tokens"]),
            bytes=int(value["bytes"]),
            stderr=float(value["stderr"]),
            groups=_unpacked(value.get("groups", "")),
        )


def _unpacked(text: str) -> tuple[float, ...]:
    if len(text) > 8 * GROUPS:
        raise ValueError(f"groups must be at most {GROUPS}")
    return tuple(np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").tolist())


def group_starts(blocks: int) -> np.ndarray:
    """Return where each group of blocks starts, int64 [groups]: at most `GROUPS` even runs."""
    groups = min(blocks, GROUPS)
    return np.arange(groups) * blocks // max(groups, 1)


def group_blocks_of(blocks: int, groups: np.ndarray) -> list[np.ndarray]:
    """Return the blocks of each of `groups` among the groups of `blocks` blocks."""
    edges = np.append(group_starts(blocks), blocks)
    return [np.arange(edges[group], edges[group + 1]) for group in groups]


def group_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums over each group of blocks, float64 [groups], of `values` [blocks]."""
    return np.add.reduceat(values.astype(np.float64), group_starts(values.size))


def domain_score(nats: np.ndarray, tokens: np.ndarray, text_bytes: int) -> DomainScore:
    """Return the score of blocks with summed `nats` [blocks] over `tokens` [blocks] tokens."""
    return DomainScore(
        nats=math.fsum(nats.tolist()),
        tokens=int(tokens.sum()),
        bytes=text_bytes,
        stderr=ratio_stderr(nats, tokens),
        groups=tuple(group_sums(nats).astype(np.float32).tolist()),
    )


def ratio_stderr(nats: np.ndarray, tokens: np.ndarray) -> float:
    """Return the standard error of sum(nats) / sum(tokens) with blocks as the sample.

    Blocks, not tokens, are the units of sampling: neighbouring tokens are no independent draws.
    For the ratio estimator R = sum y / sum x over n blocks it is
    sqrt(n / (n - 1) * sum (y_i - R x_i)^2) / sum x (Cochran, Sampling Techniques, section 2.11).
    0 for one block.
    """
    count = nats.size
    if count < 2:
        return 0.0
    total = float(tokens.sum())
    residual = nats - nats.sum() / total * tokens
    return math.sqrt(count / (count - 1) * float(residual @ residual)) / total
