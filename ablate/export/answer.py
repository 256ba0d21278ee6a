"""What is exported: one mixture, with what is known about its partitions and models."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

from ablate.errors import StudyError
from ablate.mixture import Mixture


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of a merge: a Hugging Face folder and its coefficient.

    `digest` is the SHA-256 of its model.safetensors, checked when it is read; None = unknown.
    """

    partition: str
    index: int
    folder: Path
    coefficient: float
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A mixture as plain values; `members` are the unit models of its merge, sorted."""

    mixture: Mixture
    units: dict[str, int]
    available_tokens: dict[str, int]  # training tokens of each partition
    sources: dict[str, tuple[str, ...]]  # where the text of each partition was read from
    members: tuple[Member, ...]
    seed_folder: Path
    tokenizer_folder: Path
    seed_coefficient: float = 0.0  # not 0 when the merge scales the sum of deltas
    seed_digest: str | None = None
    trust_remote_code: bool = False  # run the model code that the seed brings, and export it
    method: str = "linear"  # the merge's; others than linear are given as a vector when written
    options: tuple[tuple[str, float | bool], ...] = ()
    target_tokens: int | None = None  # budget of the large run; None = shares only


def shares(mixture: Mixture, digits: int = 9) -> dict[str, Decimal]:
    """Return partition -> weight with `digits` decimals; they sum to exactly one.

    Largest remainders are rounded up (Hamilton's method); no member is rounded to zero.
    """
    parts = apportion(mixture, 10**digits)
    return {name: Decimal(part).scaleb(-digits) for name, part in parts.items()}


def apportion(mixture: Mixture, total: int) -> dict[str, int]:
    """Return `total` split into whole numbers by weight, at least one each; the sum is `total`.

    Raises StudyError when there are more partitions than `total`.
    """
    if total < mixture.size:
        raise StudyError(
            f"a token budget must give every partition a token, got {total} for {mixture.size} "
            "partitions; raise the budget"
        )
    exact = {name: Decimal(weight) * total for name, weight in mixture.weights}
    parts = {name: max(1, int(e.to_integral_value(ROUND_FLOOR))) for name, e in exact.items()}
    by_need = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for turn in range(abs(rest := total - sum(parts.values()))):
        if rest > 0:
            parts[by_need[turn % len(by_need)]] += 1
        else:  # only when tiny weights were lifted to one
            parts[max(parts, key=lambda name: (parts[name], name))] -= 1
    return parts


def epochs(answer: Answer) -> dict[str, float]:
    """Return partition -> passes over its text that the target budget takes; {} without one.

    Raises StudyError when a partition has no tokens.
    """
    if answer.target_tokens is None:
        return {}
    tokens = apportion(answer.mixture, answer.target_tokens)
    for name in tokens:
        if answer.available_tokens.get(name, 0) <= 0:
            raise StudyError(
                f"tokens must be known for partition '{name}' to plan a budget, got none; "
                "export without a token budget"
            )
    return {name: count / answer.available_tokens[name] for name, count in tokens.items()}
