"""What is still to be scored: base models first, then the algorithm's mixtures.

Answers that the journal holds are used at once; only what is missing is asked of an evaluator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.mixture import Mixture
from ablate.models.pool import ModelPool
from ablate.progress import tell
from ablate.search.algorithms import Value
from ablate.search.candidates import Candidate, mixture_candidates
from ablate.search.conversation import Conversation, Pause
from ablate.search.journal import Journal, Scored
from ablate.search.objective import objective_value
from ablate.search.paired import ByDomain
from ablate.search.racer import Racer, Ticket
from ablate.study import MergeSettings

Foretell = Callable[[Candidate], float]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One candidate and the domains on which it is to be run.

    `keep_tokens` asks for the nats of every token to be kept (units: the ensemble proxy is made of
    them); `slopes` are the domains whose loss's derivative along every unit is asked for. With a
    `ticket` it may be stopped by the race.
    """

    candidate: Candidate
    domains: tuple[str, ...]
    keep_tokens: bool = False
    slopes: tuple[str, ...] = ()
    ticket: Ticket | None = None


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a score means: domains {name: fingerprint} and the objective's weight[domain].

    `goals` are the weights of several objectives by name, where the study has them.
    """

    domains: Mapping[str, str]
    weights: Mapping[str, float]
    goals: Mapping[str, Mapping[str, float]] | None = None

    def value(self, scored: Scored) -> Value | None:
        """Return the objective of a candidate's scores, None when the trial failed."""
        losses = {n: scored.scores[m].loss for n, m in self.domains.items() if m in scored.scores}
        wanted = [self.weights, *(self.goals or {}).values()]
        if any(name not in losses for weights in wanted for name in weights):
            return None
        goals = tuple(objective_value(weights, losses) for weights in (self.goals or {}).values())
        return Value(objective_value(self.weights, losses), goals)

    def slopes(self, scored: Scored) -> dict[str, float] | None:
        """Return d objective / d weight by unit fingerprint, None where a domain lacks them."""
        found: dict[str, float] = {}
        for name, weight in self.weights.items():
            slopes = scored.slopes.get(self.domains[name])
            if not slopes:
                return None
            for unit, slope in slopes.items():
                found[unit] = found.get(unit, 0.0) + weight * slope
        return found


def record(journal: Journal, frame: Frame, candidate: Candidate, scored: Scored) -> None:
    """Keep an answer in the journal, then tell it: the event `trial`."""
    journal.append(candidate, scored)
    tell("trial", **_event(frame, candidate, scored, journal.get(candidate.key)))


def _event(frame: Frame, candidate: Candidate, scored: Scored, known: Scored) -> dict[str, Any]:
    """Return what the event `trial` says: `scored` is the answer, `known` all that is known by now.

    Losses and objective in nats per token; `members` are how many units are merged. The objective
    is None where the trial failed, or was stopped by a race (then `estimate` stands for it).
    """
    mixture, value = candidate.mixture, frame.value(known)
    return {
        "trial": candidate.key,
        "kind": candidate.kind,
        "merge": candidate.merge,
        "unit": candidate.unit,
        "weights": dict(mixture.weights) if mixture else {},
        "size": len(mixture.weights) if mixture else 0,
        "members": len(candidate.coefficients),
        "objective": None if value is None else float(value),
        "losses": {n: known.scores[m].loss for n, m in frame.domains.items() if m in known.scores},
        "evaluated_tokens": sum(score.tokens for score in scored.scores.values())
        + (scored.stopped.tokens if scored.stopped else 0),
        "merge_seconds": scored.merge_seconds,
        "evaluate_seconds": scored.evaluate_seconds,
        "estimate": scored.stopped.estimate if scored.stopped else None,
        "error": scored.error,
    }


class Questions:
    """The stream of questions of one search; answers go to the journal and to the algorithm.

    `begin` is called when every base model is scored, so that an algorithm may look at them.
    Each mixture is asked about under every method of `merge`; the algorithm hears its least value.
    `kept` are the (unit, domain) fingerprints whose token likelihoods are at hand already; None
    when they are not wanted. `racer` may stop mixtures before they are scored in full. `foretell`
    is called when every base model is scored; with what it gives the algorithm hears the predicted
    loss of a trained model instead of the objective.
    """

    def __init__(
        self,
        *,
        pool: ModelPool,
        frame: Frame,
        merge: MergeSettings,
        journal: Journal,
        base: Sequence[Candidate] = (),
        begin: Callable[[], Conversation] | None = None,
        kept: Set[tuple[str, str]] | None = None,
        racer: Racer | None = None,
        foretell: Callable[[], Foretell | None] | None = None,
    ) -> None:
        self._pool = pool
        self._frame = frame
        self._merge = merge
        self._journal = journal
        self._base = deque(base)
        self._begin = begin
        self._conversation: Conversation | None = None
        self._racer = racer
        self._begin_foretelling = foretell
        self._foretell: Foretell | None = None
        self._kept = None if kept is None else set(kept)
        self._open: dict[str, list[Mixture]] = {}
        self._base_open: set[str] = set()
        self._ready: deque[Question] = deque()
        self.answers = 0
        self.best: float | None = None

    @property
    def domain_marks(self) -> Mapping[str, str]:
        """Return fingerprint[domain]."""
        return self._frame.domains

    @property
    def methods(self) -> list[str]:
        """Return the names of the merge methods under which mixtures are asked about."""
        return [one.method for one in self._merge.methods]

    @property
    def stages(self) -> list[dict[str, np.ndarray]]:
        """Return the groups of windows that each stage of the race adds; none without a race."""
        return [] if self._racer is None else self._racer.stages

    def identities(self, candidate: Candidate) -> list[str]:
        """Return the fingerprints of a candidate's members, in their order."""
        return [self._pool.by_member[member].fingerprint for member, _ in candidate.coefficients]

    def next(self) -> Question | Pause:
        """Return the next question, or why there is none now."""
        if self._ready:
            return self._ready.popleft()
        while self._base:
            question = self._question(self._base.popleft())
            if question is not None:
                self._base_open.add(question.candidate.key)
                return question
        if self._begin is None:
            return Pause.DONE
        if self._base_open:
            return Pause.WAIT
        if self._conversation is None:
            self._conversation = self._begin()
            if self._begin_foretelling is not None:
                self._foretell = self._begin_foretelling()
            if self._racer is not None:
                self._conversation.on_told = self._heard
        return self._next_proposal(self._conversation)

    def _next_proposal(self, conversation: Conversation) -> Question | Pause:
        while isinstance(mixture := conversation.next(), Mixture):
            for candidate in self._candidates(mixture):
                question = self._question(candidate, conversation.wants_gradient, mixture)
                if question is not None:
                    self._ready.append(question)
                if candidate.key in self._open:
                    self._open[candidate.key].append(mixture)
            if self._ready:
                return self._ready.popleft()
            self._tell(mixture)
        return mixture

    def _candidates(self, mixture: Mixture) -> list[Candidate]:
        """Return a mixture's merges; a mixture of one unit has none but the unit."""
        return mixture_candidates(self._pool, mixture, self._merge.methods)

    def peek(self) -> bool:
        """Return whether anything has to be scored at all; the journal may hold every answer."""
        question = self.next()
        if isinstance(question, Question):
            self._ready.appendleft(question)
        return isinstance(question, Question)

    def answered(self, question: Question, scored: Scored) -> None:
        """Take an answer: append it to the journal, then tell the algorithm."""
        candidate = question.candidate
        record(self._journal, self._frame, candidate, scored)
        self.answers += 1
        self._base_open.discard(candidate.key)
        if question.keep_tokens and self._kept is not None and scored.error is None:
            unit = self._pool.by_member[candidate.coefficients[0][0]].fingerprint
            self._kept |= {(unit, self._frame.domains[name]) for name in question.domains}
        for mixture in self._open.pop(candidate.key, []):
            self._tell(mixture)

    def judge(self, question: Question, stage: int, nats: ByDomain) -> Scored | None:
        """Return the answer to a question that the race stops, None when it goes on.

        `nats[domain]` are those of the groups that `stage` adds.
        """
        assert self._racer is not None and question.ticket is not None
        stopped = self._racer.judge(question.ticket, stage, nats)
        return None if stopped is None else Scored(key=question.candidate.key, stopped=stopped)

    def _heard(self, mixture: Mixture) -> None:
        assert self._racer is not None
        candidate, *_ = self._candidates(mixture)
        self._racer.heard(mixture, self._journal.get(candidate.key))

    def _lost(self, scored: Scored) -> bool:
        """Return whether this race stopped a candidate already."""
        stopped = scored.stopped
        return self._racer is not None and stopped is not None and stopped.race == self._racer.mark

    def _question(
        self, candidate: Candidate, slopes: bool = False, mixture: Mixture | None = None
    ) -> Question | None:
        """Return what is to be asked about a candidate, None when all is known or it is open."""
        if candidate.key in self._open:
            return None
        known = self._journal.get(candidate.key)
        if mixture is not None and self._lost(known):
            return None
        missing = set(self._journal.missing(candidate.key, self._frame.domains))
        unkept = self._without_tokens(candidate)
        flat = self._without_slopes(candidate) if slopes else set()
        asked = tuple(n for n in self._frame.domains if n in missing | unkept | flat)
        if not asked:
            return None
        self._open[candidate.key] = []
        racer = self._racer if mixture is not None and not known.scores else None
        return Question(
            candidate=candidate,
            domains=asked,
            keep_tokens=candidate.kind == "unit" and self._kept is not None,
            slopes=tuple(name for name in self._frame.domains if name in flat),
            ticket=racer.ticket(mixture) if racer and mixture else None,
        )

    def _without_tokens(self, candidate: Candidate) -> set[str]:
        if candidate.kind != "unit" or self._kept is None:
            return set()
        unit = self._pool.by_member[candidate.coefficients[0][0]].fingerprint
        return {n for n, mark in self._frame.domains.items() if (unit, mark) not in self._kept}

    def _without_slopes(self, candidate: Candidate) -> set[str]:
        slopes = self._journal.get(candidate.key).slopes
        units = {unit.fingerprint for unit in self._pool.units}
        domains = self._frame.domains
        return {n for n in self._frame.weights if not units <= set(slopes.get(domains[n], {}))}

    def _tell(self, mixture: Mixture) -> None:
        """Tell the algorithm the least value of a mixture's merges, once all are answered."""
        candidates = self._candidates(mixture)
        if self._conversation is None or any(one.key in self._open for one in candidates):
            return
        values = [value for one in candidates if (value := self._value(one)) is not None]
        self._conversation.result(mixture, min(values) if values else None)

    def _value(self, candidate: Candidate) -> Value | None:
        scored = self._journal.get(candidate.key)
        value = self._frame.value(scored)
        if value is not None:
            if self._foretell is not None:
                value = Value(self._foretell(candidate), value.goals)
            if self.best is None or value < self.best:
                self.best = float(value)
            return Value(value, value.goals, self._gradient(candidate, scored))
        if scored.stopped is not None and self._lost(scored):
            return Value(scored.stopped.estimate)
        return None

    def _gradient(self, candidate: Candidate, scored: Scored) -> dict[str, float] | None:
        """Return d objective / d weight[partition]: a partition's units share its weight evenly."""
        slopes = self._frame.slopes(scored)
        if slopes is None:
            return None
        scale = self._merge.scale
        reach = 1.0 if scale is None else scale * len(candidate.coefficients)
        sums: dict[str, list[float]] = {}
        for unit in self._pool.units:
            if unit.fingerprint in slopes:
                sums.setdefault(unit.partition, []).append(slopes[unit.fingerprint])
        return {name: reach * sum(of) / len(of) for name, of in sums.items()}
