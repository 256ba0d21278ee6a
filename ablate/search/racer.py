"""One search's race: who leads, and which mixtures stop. The statistics are in `racing`.

Everything a mixture is compared with is fixed when it is proposed: the leader, how many leaders
there were, and the finished mixtures that predict it. So a race ends the same for any number of
evaluators, whichever finishes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ablate.mixture import Mixture
from ablate.search.journal import Scored, Stopped
from ablate.search.paired import ByDomain
from ablate.search.racing import (
    Race,
    asha_stop,
    groups_of,
    plan_race,
    prediction_shares,
    stage_objective,
    verdict,
)
from ablate.search.spaces import Space, vector
from ablate.study import RacingSettings
from ablate.workspace import fingerprint

PREDICTORS = 256  # finished mixtures that predict a newcomer, the latest ones


@dataclass(kw_only=True, eq=False)
class Ticket:
    """What one mixture is judged by: the state of the race when it was proposed.

    `leader[domain]` are the leader's nats by group; `predicted[domain]` what the finished mixtures
    say of this one's; `rungs[stage]` the objectives of those that came before. `nats[domain]` are
    the mixture's own, NaN where it was not scored yet; `values` its objective after each stage.
    """

    leader: ByDomain | None
    leaders: int
    predicted: ByDomain | None
    rungs: tuple[tuple[float, ...], ...]
    nats: dict[str, np.ndarray]
    values: list[float] = field(default_factory=list)


class Racer:
    """The race over the mixtures of one search.

    `tokens[domain]` [groups] are the tokens of each group of windows, `weights` the objective's,
    `marks[domain]` the fingerprints under which scores are kept, `space` the mixtures it is over and
    `question` whatever else the race's outcome depends on.
    """

    def __init__(
        self,
        settings: RacingSettings,
        *,
        tokens: ByDomain,
        weights: Mapping[str, float],
        marks: Mapping[str, str],
        space: Space,
        question: object,
    ) -> None:
        self._settings = settings
        self._race: Race = plan_race(
            tokens, weights, (*settings.shares, 1.0), settings.alpha, settings.at_once
        )
        self._marks = {name: marks[name] for name in self._race.tokens}
        self._space = space
        self.mark = fingerprint(
            {"settings": settings.model_dump(), "weights": dict(weights), "marks": self._marks}
            | {"question": question}
        )
        self._weights: list[np.ndarray] = []
        self._finished: list[ByDomain] = []
        self._leader: tuple[float, ByDomain] | None = None
        self._leaders = 1
        self._rungs: list[list[float]] = [[] for _ in settings.shares]

    @property
    def stages(self) -> list[dict[str, np.ndarray]]:
        """Return the groups of each domain that every stage before the last adds, ascending."""
        return [groups_of(self._race, stage) for stage in range(len(self._settings.shares))]

    def heard(self, mixture: Mixture, scored: Scored) -> None:
        """Take a mixture's outcome. The order of the calls is the order of the proposals."""
        if all(mark in scored.scores for mark in self._marks.values()):
            nats = {n: np.array(scored.scores[m].groups) for n, m in self._marks.items()}
            if any(nats[name].size != counted.size for name, counted in self._race.tokens.items()):
                return  # scored by a version that kept no groups
            self._finish(mixture, nats)
        elif scored.stopped is not None and scored.stopped.race == self.mark:
            for rung, value in zip(self._rungs, scored.stopped.values, strict=False):
                rung.append(value)

    def _finish(self, mixture: Mixture, nats: ByDomain) -> None:
        self._weights = [*self._weights, vector(self._space, mixture)][-PREDICTORS:]
        self._finished = [*self._finished, nats][-PREDICTORS:]
        for stage, rung in enumerate(self._rungs):
            rung.append(float(stage_objective(self._race, nats, stage)))
        value = float(stage_objective(self._race, nats, len(self._rungs)))
        if self._leader is None:
            self._leader = (value, nats)
        elif value < self._leader[0]:
            self._leader, self._leaders = (value, nats), self._leaders + 1

    def ticket(self, mixture: Mixture) -> Ticket:
        """Return what a newly proposed mixture is to be judged by."""
        predicted = None
        if self._finished:
            shares = prediction_shares(np.array(self._weights), vector(self._space, mixture))
            predicted = {
                name: shares @ np.array([nats[name] for nats in self._finished])
                for name in self._marks
            }
        return Ticket(
            leader=None if self._leader is None else self._leader[1],
            leaders=self._leaders,
            predicted=predicted,
            rungs=tuple(tuple(rung) for rung in self._rungs),
            nats={name: np.full(len(t), np.nan) for name, t in self._race.tokens.items()},
        )

    def judge(self, ticket: Ticket, stage: int, nats: ByDomain) -> Stopped | None:
        """Return the record of a stop, or None to go on.

        `nats[domain]` are those of the groups that `stage` adds, in the order of `stages`.
        """
        for name, groups in groups_of(self._race, stage).items():
            # As the journal keeps the leader's: equal models are equal to the bit.
            ticket.nats[name][groups] = np.asarray(nats[name], dtype=np.float32)
        del ticket.values[stage:]  # a trial that was tried again reports its stages again
        ticket.values.append(float(stage_objective(self._race, ticket.nats, stage)))
        if ticket.leader is None:
            return None
        found = verdict(
            ticket.nats,
            ticket.leader,
            stage,
            self._race,
            ticket.leaders,
            controls=None if ticket.predicted is None else _as_rows(ticket.predicted),
        )
        stop = found.stop
        if self._settings.rule == "asha":
            stop = asha_stop(ticket.rungs[stage], ticket.values[stage], self._settings.eta)
        if not stop:
            return None
        return Stopped(
            race=self.mark,
            stage=stage,
            share=found.share,
            tokens=int(self._race.stages[stage].tokens.sum()),
            estimate=found.objective,
            values=tuple(ticket.values),
        )


def _as_rows(nats: ByDomain) -> dict[str, np.ndarray]:
    return {name: values[None] for name, values in nats.items()}
