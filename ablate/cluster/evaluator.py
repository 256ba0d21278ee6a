"""An evaluator: a process that scores one trial's candidate after another with one model.

A trial without a race is one call of `step`. A raced one is a call per stage: it reports the nats of
the groups that the stage adds, and the driver's scheduler may end it there.
"""

from __future__ import annotations

import faulthandler
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from ablate.cluster.pool import Store
from ablate.errors import AblateError, OwnCodeError
from ablate.evaluate.blocks import Domain
from ablate.evaluate.scorer import Merge, MergeScore, Scorer, ScorerSettings
from ablate.evaluate.statistics import DomainScore, group_blocks_of, group_sums
from ablate.evaluate.token_nats import write_token_nats
from ablate.merge import merge_method

# One scorer per evaluator process: Tune reuses the process for trial after trial.
_scorers: dict[str, Scorer] = {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Desk:
    """What every trial of a run has at hand; `marks` are fingerprint[domain].

    `stages` are the groups of windows that each stage of the race adds, by domain. A process that
    takes longer than `timeout_seconds` over a trial, or over a stage, ends.
    """

    run: str
    settings: ScorerSettings
    domains: list[Domain]
    marks: dict[str, str]
    store: Store
    stages: list[dict[str, np.ndarray]]
    timeout_seconds: float


class EvaluatorProcess(tune.Trainable):  # type: ignore[misc]
    """Tune's trainable."""

    def setup(self, config: dict[str, Any], desk: Desk | None = None) -> None:
        """Take the first candidate; `desk` comes from `tune.with_parameters`."""
        assert desk is not None
        self._desk = desk
        self._race: _Race | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate; the model stays."""
        self._race = None
        return True

    def step(self) -> dict[str, Any]:
        """Score the candidate; what ablate raises on purpose is a result, not a dead process."""
        done = True
        try:
            with _ended_after(self._desk.timeout_seconds):
                if self.config["raced"]:
                    answer, done = self._next_stage()
                else:
                    answer = _score(self.config, self._desk)
        except OwnCodeError:
            raise  # tried again
        except AblateError as error:
            answer = {"failure": str(error)}
        # As text: Tune flattens nested results, and copies every key of a flat one many times.
        return {"answer": json.dumps(answer), "done": done}

    def _next_stage(self) -> tuple[dict[str, Any], bool]:
        if self._race is None:
            self._race = _Race(self.config, self._desk)
        return self._race.advance()


class _Race:
    """A candidate on its way through the stages; its merge stays in the live model."""

    def __init__(self, config: dict[str, Any], desk: Desk) -> None:
        self._scorer = _scorer(desk)
        self._scorer.evaluator.limit_batch(config["halvings"])
        self._stages = desk.stages
        self._stage = 0
        self._merge_seconds = self._scorer.merge(_merge(config, desk.store))
        self._evaluate_seconds = 0.0
        count = self._scorer.evaluator.windows_of
        self._nats = {name: np.full(count(name), np.nan) for name in config["domains"]}

    def advance(self) -> tuple[dict[str, Any], bool]:
        """Return the next stage's report, and whether it is the last: all scores."""
        last = self._stage == len(self._stages)
        groups = {} if last else self._stages[self._stage]
        self._see(self._unseen() if last else self._blocks(groups))
        times = {"merge_seconds": self._merge_seconds, "evaluate_seconds": self._evaluate_seconds}
        if last:
            scores = self._scorer.evaluator.scores_of(self._nats)
            return {**_scores(scores), "slopes": {}, **times}, True
        sums = {name: group_sums(self._nats[name])[kept].tolist() for name, kept in groups.items()}
        report = {"stage": self._stage, "nats": sums, **times}
        self._stage += 1
        return report, False

    def _see(self, blocks: dict[str, np.ndarray]) -> None:
        started = time.perf_counter()
        for name, nats in self._scorer.evaluator.score_some(blocks).items():
            self._nats[name][blocks[name]] = nats
        self._evaluate_seconds += time.perf_counter() - started

    def _blocks(self, groups: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = self._scorer.evaluator.windows_of
        none = np.zeros(0, dtype=np.int64)
        return {
            name: np.concatenate([none, *group_blocks_of(count(name), wanted)])
            for name, wanted in groups.items()
        }

    def _unseen(self) -> dict[str, np.ndarray]:
        return {name: np.flatnonzero(np.isnan(nats)) for name, nats in self._nats.items()}


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process when the block takes longer; the log then says where it was.

    A watchdog of the interpreter's own: it also ends code that hangs outside Python.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _score(config: dict[str, Any], desk: Desk) -> dict[str, Any]:
    scorer = _scorer(desk)
    scorer.evaluator.limit_batch(config["halvings"])
    merge = _merge(config, desk.store)
    result = scorer.score(merge, config["domains"], keep_tokens=config["keep_tokens"])
    if config["keep_tokens"]:
        _keep_tokens(result, config["identities"][0], desk)
    slopes = {}
    if config["slopes"]:
        slopes = scorer.slopes(desk.store.units(), desk.store.seed(), config["slopes"])
    return {
        **_scores(result.scores),
        "slopes": slopes,
        "merge_seconds": result.merge_seconds,
        "evaluate_seconds": result.evaluate_seconds,
    }


def _scorer(desk: Desk) -> Scorer:
    scorer = _scorers.get(desk.run)
    if scorer is None:
        _scorers.clear()
        scorer = _scorers[desk.run] = Scorer(desk.settings, desk.domains)
    return scorer


def _scores(scores: dict[str, DomainScore]) -> dict[str, Any]:
    return {"scores": {name: score.to_json() for name, score in scores.items()}}


def _merge(config: dict[str, Any], store: Store) -> Merge:
    members = [(name, index) for name, index, _ in config["members"]]
    weights = [share for _, _, share in config["members"]]
    vectors = store.vectors(members)
    if config["seed"]:  # a linear merge with a share of the seed: one more member
        vectors, weights = [store.seed(), *vectors], [config["seed"], *weights]
    kind = merge_method(config["method"]).statistics
    return Merge(
        method=config["method"],
        members=vectors,
        weights=weights,
        identities=config["identities"],
        seed=store.seed() if config["method"] != "linear" else None,
        statistics=None if kind is None else store.statistics_of(kind, members),
        options=config["options"],
    )


def _keep_tokens(result: MergeScore, unit: str, desk: Desk) -> None:
    for name, nats in result.token_nats.items():
        write_token_nats(Path(desk.store.root), unit, desk.marks[name], nats)
