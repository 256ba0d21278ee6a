"""Score one question in this process: no Ray, for a shell or a notebook on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from ablate.corpus import read_corpus
from ablate.errors import RunError
from ablate.evaluate.gathering import gathered, unit_sample
from ablate.evaluate.scorer import Merge, Scorer, ScorerSettings, Slopes
from ablate.evaluate.statistics import DomainScore
from ablate.merge import merge_method
from ablate.mixture import Mixture
from ablate.models.checkpoint import load_flat
from ablate.models.layout import Layout
from ablate.progress import bar
from ablate.search.candidates import Candidate, unit_candidate
from ablate.search.conversation import Conversation
from ablate.search.ensemble import EnsembleProxy
from ablate.search.journal import Journal, Scored
from ablate.search.questions import Question, record
from ablate.search.table import Trial
from ablate.standing import Standing, domains_of
from ablate.workspace import Workspace


def answer_here(standing: Standing, question: Question, settings: ScorerSettings) -> Scored:
    """Return the scores of a question: its members are read from their folders, one merge, one pass.

    The evaluation model and its tokens are kept for the next question. Raises CheckpointError when
    a folder does not hold the model that the pool names.
    """
    candidate, pool, root = question.candidate, standing.pool, standing.workspace.root
    with _threads(settings.threads):
        scorer = _scorer(settings, standing.corpus.fingerprint, root)
        merge = read_merge(standing, candidate, scorer.layout)
        try:
            result = scorer.score(merge, question.domains)
        except RunError as error:
            return Scored(key=candidate.key, error=str(error))
        slopes: Slopes = {}
        if question.slopes:
            start = load_flat(root / pool.seed.folder, scorer.layout, digest=pool.seed.digest)
            every = {
                unit.fingerprint: load_flat(root / unit.folder, scorer.layout, digest=unit.digest)
                for unit in pool.units
            }
            slopes = scorer.slopes(every, start, question.slopes)
    marks = standing.frame.domains
    return Scored(
        key=candidate.key,
        scores={marks[name]: score for name, score in result.scores.items()},
        slopes={marks[name]: found for name, found in slopes.items()},
        merge_seconds=result.merge_seconds,
        evaluate_seconds=result.evaluate_seconds,
    )


def read_merge(standing: Standing, candidate: Candidate, layout: Layout) -> Merge:
    """Return a candidate's merge, its members and the seed read from their folders.

    What its method asks of each unit is read, or gathered where it is not kept. Raises
    CheckpointError when a folder does not hold the model that the pool names.
    """
    pool, root = standing.pool, standing.workspace.root
    method = merge_method(candidate.method)
    units = [pool.by_member[member] for member, _ in candidate.coefficients]
    weights = [share for _, share in candidate.coefficients]
    members = [load_flat(root / unit.folder, layout, digest=unit.digest) for unit in units]
    seed, statistics = None, None
    if candidate.seed_coefficient or method.needs_seed:
        seed = load_flat(root / pool.seed.folder, layout, digest=pool.seed.digest)
    if candidate.seed_coefficient and seed is not None:
        members, weights = [seed, *members], [candidate.seed_coefficient, *weights]
    if method.statistics is not None:
        statistics = [
            gathered(unit_sample(member, standing.study, standing.corpus, pool, method.statistics))
            for member, _ in candidate.coefficients
        ]
    return Merge(
        method=candidate.method,
        members=members,
        weights=weights,
        identities=[unit.fingerprint for unit in units],
        seed=seed,
        statistics=statistics,
        options=dict(candidate.options),
    )


def search_ensemble(standing: Standing, journal: Journal, conversation: Conversation) -> None:
    """Score an algorithm's mixtures by the ensemble of token probabilities, in this process.

    Raises RunError when the units' token likelihoods are not there.
    """
    proxy = _proxy(standing)
    done = 0
    with bar("ensemble", conversation.trials) as advance:
        while isinstance(mixture := conversation.next(), Mixture):
            row = _ensemble_row(standing, journal, proxy, mixture)
            goals = standing.frame.value(Scored(key="", scores=_marked(standing, row)))
            conversation.result(mixture, goals)
            done += 1
            advance(done)
        advance(conversation.trials)


def score_ensemble(standing: Standing, journal: Journal, mixture: Mixture) -> Trial:
    """Return the row of one mixture's ensemble, kept in the journal.

    Raises RunError when the units' token likelihoods are not there.
    """
    return _ensemble_row(standing, journal, _proxy(standing), mixture)


def _ensemble_row(
    standing: Standing, journal: Journal, proxy: EnsembleProxy, mixture: Mixture
) -> Trial:
    rows = standing.ensemble_trials(journal, proxy, [mixture])
    if not rows:  # one unit: scored already
        unit = next(m for m in standing.pool.by_member if m[0] == mixture.partitions[0])
        return standing.trial(journal, unit_candidate(standing.pool, unit))
    row = rows[0]
    if journal.missing(row.candidate.key, standing.frame.domains):
        scored = Scored(key=row.candidate.key, scores=_marked(standing, row))
        record(journal, standing.frame, row.candidate, scored)
    return row


def _marked(standing: Standing, row: Trial) -> dict[str, DomainScore]:
    return {standing.frame.domains[name]: score for name, score in row.scores.items()}


def _proxy(standing: Standing) -> EnsembleProxy:
    proxy = standing.ensemble()
    if proxy is None:
        raise RunError(
            "an ensemble must have every unit's token likelihoods, got some missing; run "
            "`ablate search`, which makes them"
        )
    return proxy


@lru_cache(maxsize=1)
def _scorer(settings: ScorerSettings, corpus_fingerprint: str, root: Path) -> Scorer:
    corpus = read_corpus(Workspace(root))
    if corpus is None or corpus.fingerprint != corpus_fingerprint:
        raise RunError(f"the corpus in {root} changed while it was scored; run it again")
    return Scorer(settings, domains_of(corpus, root))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Use so many torch threads, as an evaluator does, and give the caller its own back."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
