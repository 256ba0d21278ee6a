"""The standing of a study: its present question, and every score that answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ablate.corpus import Corpus, read_corpus, read_domain
from ablate.corpus.inputs import changed_settings
from ablate.errors import WorkspaceError
from ablate.evaluate.blocks import Domain, scored_bytes
from ablate.evaluate.statistics import group_sums
from ablate.merge import code_mark
from ablate.mixture import Mixture
from ablate.models.pool import ModelPool, read_pool
from ablate.search.candidates import (
    ENSEMBLE,
    Candidate,
    base_candidates,
    merge_label,
    mixture_candidate,
    named_by,
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
from ablate.search.table import Predicted, Trial, build_trial
from ablate.study import MergeSettings, Study, ValidateSettings
from ablate.train.job import TrainingJob
from ablate.train.recipe import own_tokens
from ablate.train.stages import TrainedRun, mixture_job, seed_job, unit_jobs
from ablate.validate.predictor import Predictor
from ablate.validate.runs import candidate_of, is_asked, recalled_run
from ablate.validate.subjects import LOWEST, MEAN, MERGE, OBJECTIVE, Subject, subjects
from ablate.workspace import Workspace, fingerprint, read_json

Member = tuple[str, int]
UnitLosses = Mapping[Member, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What every score of a study depends on. Values only; nothing here computes a score."""

    study: Study
    workspace: Workspace
    pool: ModelPool
    corpus: Corpus
    frame: Frame
    space: Space
    _ensemble: list[EnsembleProxy] = field(default_factory=list, init=False, repr=False)

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
        """Return the ensemble of the pool's units, None before all of them are scored.

        It is made once: what units think of the evaluated tokens does not change.
        """
        if not self._ensemble:
            read = domains_of(self.corpus, self.workspace.root)
            length = self.study.evaluation_length
            sizes = {domain.name: int(scored_bytes(domain, length).sum()) for domain in read}
            found = ensemble_proxy(self.pool, self.domains, sizes, self.kept())
            self._ensemble.extend([] if found is None else [found])
        return self._ensemble[0] if self._ensemble else None

    def ensemble_trials(
        self,
        journal: Journal,
        proxy: EnsembleProxy,
        mixtures: Sequence[Mixture],
        units: UnitLosses | None = None,
    ) -> list[Trial]:
        """Return the rows of mixtures' ensembles; a single unit has none, its row is its own."""
        ensemble = MergeSettings(method=ENSEMBLE)
        asked = [mixture_candidate(self.pool, mixture, ensemble) for mixture in mixtures]
        candidates = [candidate for candidate in asked if candidate.kind != "unit"]
        marks, units = self.frame.domains, units or self.unit_losses(journal)
        found = proxy.scores([one.mixture for one in candidates if one.mixture])
        return [
            self._row(
                candidate,
                Scored(key=candidate.key, scores={marks[n]: s for n, s in scores.items()}),
                units,
            )
            for candidate, scores in zip(candidates, found, strict=True)
        ]

    def trial(
        self, journal: Journal, candidate: Candidate, units: UnitLosses | None = None
    ) -> Trial:
        """Return the row of one candidate; `units` spare many rows reading `unit_losses` again."""
        scored = journal.get(candidate.key)
        return self._row(candidate, scored, units or self.unit_losses(journal))

    def _row(self, candidate: Candidate, scored: Scored, units: UnitLosses) -> Trial:
        return build_trial(candidate, scored, self.frame.domains, self.frame.weights, units)

    def unit_losses(self, journal: Journal) -> UnitLosses:
        """Return loss[member][domain] of the units, of those that are scored."""
        marks = self.frame.domains.items()
        found: dict[Member, dict[str, float]] = {}
        for member in self.pool.by_member:
            scores = journal.get(unit_candidate(self.pool, member).key).scores
            found[member] = {name: scores[m].loss for name, m in marks if m in scores}
        return found

    def leaderboard(self, journal: Journal, *, ensembles: bool = True) -> Leaderboard:
        """Return every model of this pool that is scored on every domain, or failed.

        Where the units' token likelihoods are kept, every scored mixture has a row of its
        ensemble too; without `ensembles` only where predictions are made of them.
        """
        candidates = base_candidates(self.pool)
        methods = self.study.search.merge.methods
        codes = {one.method: code_mark(one.method) for one in methods}
        recalled = (recall(self.pool, record) for record in journal.records.values())
        candidates += [
            named_by(one, self.pool, methods)
            for one in recalled
            if one and one.code in (None, codes.get(one.method))
        ]
        trained = [(run, candidate_of(job, run)) for run, job in self.trained(journal)]
        candidates += [candidate for _, candidate in trained]
        units = self.unit_losses(journal)
        rows = [self.trial(journal, candidate, units) for candidate in candidates]
        complete = len(self.frame.domains)
        kept = [r for r in rows if r.error or r.stopped or len(r.scores) == complete]
        if ensembles or (self.predictor is not None and ENSEMBLE in self.predictor.used):
            known = {row.candidate.key for row in kept}
            mixtures = [row.candidate.mixture for row in rows if not row.stopped]
            kept += self._ensembles(journal, mixtures, known, units)
        return Leaderboard(
            trials=tuple(sorted(self._with_predictions(kept), key=Trial.sort_key)),
            domains=tuple(self.frame.domains),
            space=self.space,
            merges=self.merges,
            units=self.pool.units_of(),
            weights=self.frame.weights,
            group_tokens=self.group_tokens,
            goals=self.frame.goals or {},
            asked=frozenset(candidate.key for run, candidate in trained if self._is_asked(run)),
            validated=str((self.agreement or {}).get("headline") or ""),
        )

    def _is_asked(self, run: TrainedRun) -> bool:
        return is_asked(self.study, self.corpus, self.study.validate_ or ValidateSettings(), run)

    def trained(self, journal: Journal) -> list[tuple[TrainedRun, TrainingJob]]:
        """Return the runs on whole mixtures that are scored, were this study to train them now.

        One under another recipe, of other text or from another seed is none of them.
        """
        found = []
        for record in journal.records.values():
            run = recalled_run(record)
            if run is None or not set(run.mixture.partitions) <= self.corpus.partitions.keys():
                continue
            job = self.job(run)
            if candidate_of(job, run).key == record["key"]:
                found.append((run, job))
        return found

    def job(self, run: TrainedRun) -> TrainingJob:
        """Return the job that trains a model on a whole mixture."""
        return mixture_job(self.study, self.corpus, self.workspace, self.pool.seed, run)

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
                self.study.search.merge.model_dump(mode="json", exclude={"alternatives"}),
                self.pool.seed.fingerprint,
                sorted(unit.fingerprint for unit in self.pool.units),
            ],
        )

    @property
    def merges(self) -> tuple[str, ...]:
        """Return the labels of the study's merges."""
        return tuple(merge_label(one) for one in self.study.search.merge.methods)

    @cached_property
    def alone(self) -> frozenset[str]:
        """Return the partitions of one unit whose model is not what training on them alone gives.

        None where a unit is trained on its own text only and on as many tokens as `validate` would.
        """
        study, settings = self.study, self.study.validate_ or ValidateSettings()
        own = own_tokens(study, study.corpus.unit_tokens)
        same = settings.tokens == "proportional" or settings.total_tokens in (None, own)
        if same and study.train.replay is None and study.train.average is None:
            return frozenset()
        return frozenset(name for name, count in self.pool.units_of().items() if count == 1)

    def subjects(self, rows: Sequence[Trial]) -> dict[str, Subject]:
        """Return the mixtures among rows whose trained losses are to be predicted, by key."""
        return subjects(rows, self.merges, self.frame.weights, self.alone)

    @cached_property
    def agreement(self) -> dict[str, Any] | None:
        """Return what agreement.json holds, where it is of this study as it stands.

        Raises WorkspaceError when it is altered.
        """
        body = read_json(self.workspace.agreement)
        return body if body is not None and body.get("mark") == trained_mark(self) else None

    @cached_property
    def predictor(self) -> Predictor | None:
        """Return what `validate` calibrated; domains whose text changed since are left out.

        Raises WorkspaceError when agreement.json holds something else.
        """
        body = (self.agreement or {}).get("predictor")
        if body is None:
            return None
        try:
            found = Predictor.from_json(body)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise WorkspaceError(
                f"agreement.json must hold what validate wrote, got {type(error).__name__} in "
                f"{self.workspace.agreement}; run `ablate validate` again"
            ) from error
        marks = self.frame.domains
        same = {n: fit for n, fit in found.fits.items() if marks.get(n) == found.domains.get(n)}
        return replace(found, fits=same) if same else None

    @cached_property
    def predicts_objective(self) -> bool:
        """Return whether what is calibrated tells anything of the present objective."""
        found = self.predictor
        return found is not None and found.objective(self.frame.weights) is not None

    def foretell(self, journal: Journal) -> Callable[[Candidate], float] | None:
        """Return what gives the predicted objective of a merge that the journal knows.

        None where nothing is calibrated for it, or where the seed or a unit has no score. A search
        is told these values, so that it compares mixtures of all sizes.
        """
        found = self.predictor
        if found is None or not self.predicts_objective:
            return None
        proxy = self.ensemble() if ENSEMBLE in found.used else None
        if not found.used <= {MERGE, MEAN, LOWEST} | ({ENSEMBLE} if proxy is not None else set()):
            return None
        units = self.unit_losses(journal)
        base = [self.trial(journal, one, units) for one in base_candidates(self.pool)]
        if any(row.objective is None for row in base):
            return None

        def value(candidate: Candidate) -> float:
            rows = [*base, self.trial(journal, candidate, units)]
            if proxy is not None and candidate.mixture is not None:
                rows += self.ensemble_trials(journal, proxy, [candidate.mixture], units)
            whole = self._with_predictions(rows)[len(base)].predicted_objective
            assert whole is not None
            return whole.loss

        return value

    def _with_predictions(self, rows: list[Trial]) -> list[Trial]:
        """Return rows with the trained losses that are predicted of them, where calibrated.

        A mixture of one unit is trained already, unless it is among `alone`: its own losses are no
        prediction, but certain.
        """
        if self.predictor is None:
            return rows
        known = self.subjects(rows)
        found = self.predictor.predict(list(known.values()), self.frame.weights)
        return [self._with_prediction(row, found) for row in rows]

    def _with_prediction(self, row: Trial, found: Mapping[str, Mapping[str, Predicted]]) -> Trial:
        mixture = row.candidate.mixture
        kind = row.candidate.kind
        single = kind == "unit" and self.pool.units_of()[row.partitions[0]] == 1
        if single and row.scores and row.partitions[0] not in self.alone:
            own = {name: Predicted(loss, loss, loss) for name, loss in row.losses.items()}
            value = row.objective
            certain = None if value is None else Predicted(value, value, value)
            whole = certain if self.predicts_objective else None
            return replace(row, predicted=own, predicted_objective=whole)
        if not (single or kind == "proxy") or mixture is None or mixture.key() not in found:
            return row
        values = dict(found[mixture.key()])
        whole = values.pop(OBJECTIVE, None)
        return replace(row, predicted=values, predicted_objective=whole)

    def _ensembles(
        self,
        journal: Journal,
        mixtures: Sequence[Mixture | None],
        known: Set[str],
        units: UnitLosses,
    ) -> list[Trial]:
        """Return the rows of mixtures' ensembles, each once, but for those that are `known`."""
        asked = {mixture.key(): mixture for mixture in mixtures if mixture is not None}
        proxy = self.ensemble()
        if proxy is None:
            return []
        rows = self.ensemble_trials(journal, proxy, list(asked.values()), units)
        return [row for row in rows if row.candidate.key not in known]


def domains_of(corpus: Corpus, root: Path) -> list[Domain]:
    """Return the evaluated tokens of every domain, by name."""
    found = []
    for name, info in sorted(corpus.domains.items()):
        tokens, token_bytes = read_domain(root, info)
        found.append(Domain(name=name, tokens=tokens, token_bytes=token_bytes))
    return found


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
    _require_own(study, pool)
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


def current_standing(study: Study, workspace: Workspace, pool: ModelPool | None = None) -> Standing:
    """Return `standing_of` a study whose corpus and pool are what it asks for now.

    A checkpoint at `model.path` is taken to be the one that it was: `ablate train` reads it. Raises
    WorkspaceError where the study was edited since, and names the verb to run.
    """
    standing = standing_of(study, workspace)
    changed = changed_settings(standing.corpus, study)
    if changed:
        raise WorkspaceError(
            f"corpus.json must be of the study as it is, got one of before "
            f"{', '.join(changed)} changed; run `ablate train`, or undo the change"
        )
    seed = None if study.model.path else seed_job(study, standing.corpus, workspace)
    first = standing.pool.seed
    wanted = first.fingerprint if seed is None else seed.fingerprint
    folder = workspace.root / first.folder
    jobs = unit_jobs(study, standing.corpus, workspace, wanted, folder)
    asked = {job.fingerprint for job in jobs if job.metadata["partition"] not in study.units}
    there = {u.fingerprint for u in standing.pool.units if u.partition not in study.units}
    if asked != there or wanted != first.fingerprint:
        raise WorkspaceError(
            f"pool.json must be of the study as it is, got {len(there & asked)} of the "
            f"{len(asked)} models that it trains now (its seed, training or partitions changed); "
            "run `ablate train`, or undo the change"
        )
    return standing


def _require_own(study: Study, pool: ModelPool) -> None:
    """Refuse models outside the workspace that the study does not bring in."""
    for unit in pool.units:
        brought = {str(Path(folder).resolve()) for folder in study.units.get(unit.partition, ())}
        if Path(unit.folder).is_absolute() and unit.folder not in brought:
            raise WorkspaceError(
                f"models outside the workspace must be named under units.{unit.partition}, got "
                f"{unit.folder} in {pool.root or 'the pool'}; name it there, or run `ablate train`"
            )


def trained_mark(standing: Standing) -> str:
    """Return the fingerprint of what a trained loss depends on, but for mixture and text."""
    study = standing.study
    settings = study.validate_ or ValidateSettings()
    return fingerprint(
        {
            "seed": standing.pool.seed.fingerprint,
            "train": study.train.model_dump(mode="json"),
            "unit_tokens": study.corpus.unit_tokens,
            "tokens": [settings.tokens, settings.total_tokens],
            "merge": standing.merges[0],
            "weighting": study.search.merge.weighting,
        }
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
