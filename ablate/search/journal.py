"""The journal of scored models: append-only JSON lines, each with a digest of its own.

A line that a crash cut short, or that was altered, is left out by its digest and scored again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ablate.evaluate.statistics import DomainScore
from ablate.harmless import is_name
from ablate.plain_values import typed
from ablate.progress import note
from ablate.search.candidates import Candidate, Kind, describe
from ablate.stores import may_write
from ablate.workspace import SCHEMA_VERSION, lines_of

MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Where a race stopped a candidate: what its scores on a part of the tokens say.

    `race` is the fingerprint of the race's rules and question; `stage` and `share` how far it came;
    `tokens` how many it was scored on; `estimate` its objective over all tokens, in nats per token,
    estimated with the leader's help; `values` its objective over what each stage reached had seen.
    """

    race: str
    stage: int
    share: float
    tokens: int
    estimate: float
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of one candidate: `scores[domain fingerprint]`; `error` when its trial failed.

    `slopes[domain fingerprint][unit fingerprint]` are derivatives of the loss with respect to the
    unit's weight, nats per token, where they were asked for. `stopped` is there when a race stopped
    the candidate before it had scores.
    """

    key: str
    scores: Mapping[str, DomainScore] = field(default_factory=dict)
    slopes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    merge_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    error: str | None = None
    stopped: Stopped | None = None

    def joined(self, other: Scored) -> Scored:
        """Return both entries as one: scores united, seconds added, the later error kept."""
        return replace(
            self,
            scores={**self.scores, **other.scores},
            slopes={
                mark: {**self.slopes.get(mark, {}), **other.slopes.get(mark, {})}
                for mark in {**self.slopes, **other.slopes}
            },
            merge_seconds=self.merge_seconds + other.merge_seconds,
            evaluate_seconds=self.evaluate_seconds + other.evaluate_seconds,
            error=other.error,
            stopped=other.stopped or self.stopped,
        )


class Journal:
    """The journal file and everything that was read from it or added since."""

    def __init__(self, path: Path) -> None:
        """Read `path` where it exists; lines that fail their digest are counted and left out."""
        self.path = path
        self.damaged = 0
        self.records: dict[str, dict[str, Any]] = {}
        self._scored: dict[str, Scored] = {}
        if path.exists():
            for line in lines_of(path, MAX_LINE_BYTES):
                self._read_line(line)
        if self.damaged:
            note(f"{path.name}: {self.damaged} damaged line(s) left out; they are scored again")

    def get(self, key: str) -> Scored:
        """Return what is known of a candidate: an empty entry when nothing is."""
        return self._scored.get(key) or Scored(key=key)

    def missing(self, key: str, domains: Mapping[str, str]) -> list[str]:
        """Return the names of the domains {name: fingerprint} on which it has no score yet."""
        known = self.get(key).scores
        return [name for name, mark in domains.items() if mark not in known]

    def append(self, candidate: Candidate, scored: Scored) -> None:
        """Add one finished trial, durable on this disk when this returns."""
        body = {"schema_version": SCHEMA_VERSION, **describe(candidate), **_to_json(scored)}
        line = json.dumps({"digest": _digest(body), **body}, sort_keys=True) + "\n"
        may_write(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as stream:
            if stream.tell() and not _ends_with_newline(stream):
                line = "\n" + line
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._add(body, scored)

    def _read_line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            body = json.loads(line)
            digest = body.pop("digest")
            if digest != _digest(body):
                raise ValueError("digest")
            scored = _from_json(typed(_Line, body))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.damaged += 1
            return
        self._add(body, scored)

    def _add(self, body: dict[str, Any], scored: Scored) -> None:
        self.records[scored.key] = body
        self._scored[scored.key] = self.get(scored.key).joined(scored)


def _ends_with_newline(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _to_json(scored: Scored) -> dict[str, Any]:
    return {
        "key": scored.key,
        "scores": {mark: score.to_json() for mark, score in scored.scores.items()},
        "slopes": {mark: dict(slopes) for mark, slopes in scored.slopes.items()},
        "merge_seconds": scored.merge_seconds,
        "evaluate_seconds": scored.evaluate_seconds,
        "error": scored.error,
        "stopped": None if scored.stopped is None else asdict(scored.stopped),
    }


@dataclass(frozen=True, kw_only=True)
class _Score:
    nats: float
    tokens: int
    bytes: int
    stderr: float
    groups: str = ""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """What a line holds; later versions added what has a default."""

    schema_version: int
    key: str
    kind: Kind
    merge: str | None
    method: str
    unit: int | None
    weights: tuple[tuple[str, float], ...]
    seed_coefficient: float
    coefficients: tuple[tuple[tuple[str, int], float], ...]
    scores: dict[str, _Score]
    merge_seconds: float
    evaluate_seconds: float
    error: str | None
    options: dict[str, bool | int | float] = field(default_factory=dict)
    run: dict[str, int] = field(default_factory=dict)
    code: str | None = None
    slopes: dict[str, dict[str, float]] = field(default_factory=dict)
    stopped: Stopped | None = None


def _from_json(line: _Line) -> Scored:
    """Return a line's scores; raise ValueError where they or the names beside them cannot be."""
    shown = [name for name, _ in line.weights] + ([line.merge] if line.merge else [])
    if not all(map(is_name, shown)) or any(weight < 0 for _, weight in line.weights):
        raise ValueError("names and weights")
    if any(score.tokens < 1 for score in line.scores.values()):
        raise ValueError("a score of no tokens")
    return Scored(
        key=line.key,
        scores={mark: DomainScore.from_json(vars(one)) for mark, one in line.scores.items()},
        slopes=line.slopes,
        merge_seconds=line.merge_seconds,
        evaluate_seconds=line.evaluate_seconds,
        error=line.error,
        stopped=line.stopped,
    )
