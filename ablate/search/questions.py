"""What is still to be scored: base models first, then the algorithm's mixtures.

Answers that the journal holds are used at once; only what is missing is asked of an evaluator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.mixture import Mixture
from ablate.models.pool import ModelPool
from ablate.search.candidates import Candidate, mixture_candidate
from ablate.search.conversation import Conversation, Pause
from ablate.search.journal import Journal, Scored
from ablate.search.objective import objective_value
from ablate.study import MergeSettings


@dataclass(frozen=True, kw_only=True)
class Question:
    """One candidate and the domains on which it has no score yet."""

    candidate: Candidate
    domains: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a score means: domains {name: fingerprint} and the objective's weight[domain]."""

    domains: Mapping[str, str]
    weights: Mapping[str, float]

    def value(self, scored: Scored) -> float | None:
        """Return the objective of a candidate's scores, None when the trial failed."""
        losses = {n: scored.scores[m].loss for n, m in self.domains.items() if m in scored.scores}
        if any(name not in losses for name in self.weights):
            return None
        return objective_value(self.weights, losses)


class Questions:
    """The stream of questions of one search; answers go to the journal and to the algorithm."""

    def __init__(
        self,
        *,
        pool: ModelPool,
        frame: Frame,
        merge: MergeSettings,
        journal: Journal,
        base: Sequence[Candidate] = (),
        conversation: Conversation | None = None,
    ) -> None:
        self._pool = pool
        self._frame = frame
        self._merge = merge
        self._journal = journal
        self._base = deque(base)
        self._conversation = conversation
        self._open: dict[str, list[Mixture]] = {}
        self._ready: deque[Question] = deque()
        self.answers = 0
        self.best: tuple[float, Mixture] | None = None

    @property
    def domain_marks(self) -> Mapping[str, str]:
        """Return fingerprint[domain]."""
        return self._frame.domains

    def next(self) -> Question | Pause:
        """Return the next question, or why there is none now."""
        if self._ready:
            return self._ready.popleft()
        while self._base:
            question = self._question(self._base.popleft())
            if question is not None:
                return question
        if self._conversation is None:
            return Pause.DONE
        while isinstance(mixture := self._conversation.next(), Mixture):
            candidate = mixture_candidate(self._pool, mixture, self._merge)
            if candidate.key in self._open:
                self._open[candidate.key].append(mixture)
                continue
            question = self._question(candidate)
            if question is not None:
                self._open[candidate.key].append(mixture)
                return question
            self._tell(mixture, self._journal.get(candidate.key))
        return mixture

    def peek(self) -> bool:
        """Return whether anything has to be scored at all; the journal may hold every answer."""
        question = self.next()
        if isinstance(question, Question):
            self._ready.appendleft(question)
        return isinstance(question, Question)

    def answered(self, question: Question, scored: Scored) -> None:
        """Take an answer: append it to the journal, then tell the algorithm."""
        self._journal.append(question.candidate, scored)
        self.answers += 1
        for mixture in self._open.pop(question.candidate.key, []):
            self._tell(mixture, self._journal.get(scored.key))

    def _question(self, candidate: Candidate) -> Question | None:
        missing = self._journal.missing(candidate.key, self._frame.domains)
        if not missing or candidate.key in self._open:
            return None
        self._open[candidate.key] = []
        return Question(candidate=candidate, domains=tuple(missing))

    def _tell(self, mixture: Mixture, scored: Scored) -> None:
        value = self._frame.value(scored)
        if self._conversation is not None:
            self._conversation.result(mixture, value)
        if value is not None and (self.best is None or value < self.best[0]):
            self.best = (value, mixture)
