"""The standing of a study: its present question, and every score that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ablate.corpus import Corpus, read_corpus
from ablate.errors import WorkspaceError
from ablate.evaluate.statistics import group_sums
from ablate.mixture import Mixture
from ablate.models.pool import ModelPool, read_pool
from ablate.search.candidates import (
    ENSEMBLE,
    Candidate,
    base_candidates,
    merge_label,
    mixture_candidate,
    recall,
    unit_candidate,
)
from ablate.search.ensemble import (
    EnsembleProxy,
    EvaluatedDomain,
    ensemble_proxy,
    kept_likelihoods,
)
from ablate.search.journal import Journal, Scored
from ablate.search.leaderboard import Leaderboard
from ablate.search.objective import objective_weights
from ablate.search.questions import Frame
from ablate.search.racer import Racer
from ablate.search.spaces import Partitions, Space, make_space
from ablate.search.table import Trial, build_trial
from ablate.study import MergeSettings, Study
from ablate.workspace import Workspace, fingerprint


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What every score of a study depends on. Values only; nothing here computes a score."""

    study: Study
    workspace: Workspace
    pool: ModelPool
    corpus: Corpus
    frame: Frame
    space: Space

    @cached_property
    def domains(self) -> dict[str, EvaluatedDomain]:
        """Return the evaluated domains by name."""
        length = self.study.evaluation_length
        return {
            name: EvaluatedDomain(mark=self.frame.domains[name], tokens=info.tokens, length=length)
            for name, info in sorted(self.corpus.domains.items())
        }

    def kept(self) -> dict[tuple[str, str], np.ndarray]:
        """Return the token likelihoods at hand, by (unit, domain) fingerprint."""
        return kept_likelihoods(self.workspace.root, self.pool, self.domains)

    def ensemble(self) -> EnsembleProxy | None:
        """Return the ensemble of the pool's units, None before all of them are scored."""
        return ensemble_proxy(self.pool, self.domains, self.kept())

    def ensemble_trial(
        self, journal: Journal, proxy: EnsembleProxy, mixture: Mixture
    ) -> Trial | None:
        """Return the row of a mixture's ensemble; None for a single unit, whose row is its own."""
        candidate = mixture_candidate(self.pool, mixture, MergeSettings(method=ENSEMBLE))
        if candidate.kind == "unit":
            return None
        unit = unit_candidate(self.pool, next(iter(self.pool.by_member)))
        known = journal.get(unit.key).scores
        text_bytes = {name: known[mark].bytes for name, mark in self.frame.domains.items()}
        scores = proxy.scores(mixture, text_bytes)
        marks = self.frame.domains
        scored = Scored(key=candidate.key, scores={marks[n]: s for n, s in scores.items()})
        return self._row(journal, candidate, scored)

    def trial(self, journal: Journal, candidate: Candidate) -> Trial:
        """Return the row of one candidate."""
        return self._row(journal, candidate, journal.get(candidate.key))

    def _row(self, journal: Journal, candidate: Candidate, scored: Scored) -> Trial:
        units: dict[tuple[str, int], dict[str, float]] = {}
        for member in self.pool.by_member:
            scores = journal.get(unit_candidate(self.pool, member).key).scores
            marks = self.frame.domains.items()
            units[member] = {name: scores[m].loss for name, m in marks if m in scores}
        return build_trial(candidate, scored, self.frame.domains, self.frame.weights, units)

    def leaderboard(self, journal: Journal) -> Leaderboard:
        """Return every model of this pool that is scored on every domain, or failed.

        Where the units' token likelihoods are kept, every scored mixture has a row of its
        ensemble too.
        """
        candidates = base_candidates(self.pool)
        recalled = (recall(self.pool, record) for record in journal.records.values())
        candidates += [candidate for candidate in recalled if candidate is not None]
        rows = [self.trial(journal, candidate) for candidate in candidates]
        rows += self._ensembles(journal, [row.candidate for row in rows if not row.stopped])
        complete = len(self.frame.domains)
        return Leaderboard(
            trials=tuple(
                sorted(
                    (
                        row
                        for row in rows
                        if row.error or row.stopped or len(row.scores) == complete
                    ),
                    key=Trial.sort_key,
                )
            ),
            domains=tuple(self.frame.domains),
            space=self.space,
            merge=merge_label(self.study.search.merge),
            units=self.pool.units_of(),
            weights=self.frame.weights,
            group_tokens=self.group_tokens,
            goals=self.frame.goals or {},
        )

    @property
    def group_tokens(self) -> dict[str, np.ndarray]:
        """Return the tokens of each group of windows, [groups] by domain."""
        return {name: group_sums(d.windows) for name, d in self.domains.items()}

    def racer(self) -> Racer | None:
        """Return the race that the study asks for, None when it asks for none."""
        settings = self.study.search.racing
        if settings is None:
            return None
        return Racer(
            settings,
            tokens=self.group_tokens,
            weights=self.frame.weights,
            marks=self.frame.domains,
            space=self.space,
            question=[
                self.study.search.space.model_dump(mode="json"),
                self.study.search.merge.model_dump(mode="json"),
                sorted(self.pool.units_of().items()),
            ],
        )

    def _ensembles(self, journal: Journal, candidates: Sequence[Candidate]) -> list[Trial]:
        there = {candidate.key for candidate in candidates}
        mixtures = {c.mixture.key(): c.mixture for c in candidates if c.mixture}
        proxy = self.ensemble()
        if proxy is None:
            return []
        rows = [self.ensemble_trial(journal, proxy, mixture) for mixture in mixtures.values()]
        return [row for row in rows if row is not None and row.candidate.key not in there]


def standing_of(study: Study, workspace: Workspace, pool: ModelPool | None = None) -> Standing:
    """Return the standing of a study whose corpus is prepared and whose pool is trained.

    Raises WorkspaceError that names the verb to run first, StudyError for an impossible question.
    """
    corpus = read_corpus(workspace)
    if corpus is None:
        raise WorkspaceError(
            f"a prepared corpus must stand in {workspace.corpus}, got none; run `ablate prepare`"
        )
    pool = pool or read_pool(workspace)
    if pool is None:
        raise WorkspaceError(
            f"a trained pool must stand in {workspace.root}, got no pool.json; run `ablate train`"
        )
    tokens: dict[str, int] = {}
    for unit in pool.units:
        tokens[unit.partition] = tokens.get(unit.partition, 0) + unit.tokens
    return Standing(
        study=study,
        workspace=workspace,
        pool=pool,
        corpus=corpus,
        frame=frame_of(study, corpus),
        space=space_of(study, pool.units_of(), tokens, text_of(corpus, tokens)),
    )


def frame_of(study: Study, corpus: Corpus) -> Frame:
    """Return the domains with the fingerprints under which scores are kept, and their weights."""
    domains = sorted(corpus.domains.items())
    marks = {
        name: fingerprint(
            {
                "tokens": info.tokens_file.digest,
                "length": study.evaluation_length,
                "precision": study.evaluate.precision,
            }
        )
        for name, info in domains
    }
    kinds = {name: info.kind for name, info in domains}
    search = study.search
    return Frame(
        domains=marks,
        weights=objective_weights(search.objective, kinds),
        goals={name: objective_weights(goal, kinds) for name, goal in search.objectives.items()},
    )


def space_of(
    study: Study, units: dict[str, int], tokens: dict[str, int], text: dict[str, int]
) -> Space:
    """Return the study's space over partitions: their units, trained tokens, tokens of text."""
    facts = Partitions(units=units, tokens=tokens, available=text)
    return make_space(study.search.space, facts, study.search.merge.weighting)


def text_of(corpus: Corpus, trained: dict[str, int]) -> dict[str, int]:
    """Return the tokens of text by partition; what was brought in has what it was trained on."""
    return {
        name: corpus.partitions[name].tokens if name in corpus.partitions else tokens
        for name, tokens in trained.items()
    }
