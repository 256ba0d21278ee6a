"""Score one question in this process: no Ray, for a shell or a notebook on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from ablate.corpus import Corpus, read_corpus, read_domain
from ablate.errors import RunError
from ablate.evaluate.blocks import Domain
from ablate.evaluate.scorer import Scorer, ScorerSettings
from ablate.models.checkpoint import load_flat
from ablate.search.journal import Scored
from ablate.search.questions import Question
from ablate.standing import Standing
from ablate.workspace import Workspace


def answer_here(standing: Standing, question: Question, settings: ScorerSettings) -> Scored:
    """Return the scores of a question: its members are read from their folders, one merge, one pass.

    The evaluation model and its tokens are kept for the next question. Raises CheckpointError when
    a folder does not hold the model that the pool names.
    """
    candidate, pool, root = question.candidate, standing.pool, standing.workspace.root
    models = [pool.by_member[member] for member, _ in candidate.coefficients]
    places = [(root / unit.folder, unit.digest) for unit in models]
    weights = [share for _, share in candidate.coefficients]
    if candidate.seed_coefficient:
        places.insert(0, (root / pool.seed.folder, pool.seed.digest))
        weights.insert(0, candidate.seed_coefficient)
    with _threads(settings.threads):
        scorer = _scorer(settings, standing.corpus.fingerprint, root)
        members = [load_flat(Path(f), scorer.layout, digest=digest) for f, digest in places]
        try:
            result = scorer.score(candidate.method, members, weights, question.domains)
        except RunError as error:
            return Scored(key=candidate.key, error=str(error))
    marks = standing.frame.domains
    return Scored(
        key=candidate.key,
        scores={marks[name]: score for name, score in result.scores.items()},
        merge_seconds=result.merge_seconds,
        evaluate_seconds=result.evaluate_seconds,
    )


def domains_of(corpus: Corpus, root: Path) -> list[Domain]:
    """Return the evaluated tokens of every domain, by name."""
    found = []
    for name, info in sorted(corpus.domains.items()):
        tokens, token_bytes = read_domain(root, info)
        found.append(Domain(name=name, tokens=tokens, token_bytes=token_bytes))
    return found


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
