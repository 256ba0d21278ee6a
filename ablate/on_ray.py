"""What the stages ask of Ray: missing models trained, open questions answered.

Ray is not started where nothing is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ablate.cluster.logits import averaged_logits
from ablate.cluster.metrics import trials_metered
from ablate.cluster.pool import Store, store_pool
from ablate.cluster.room import require_evaluator
from ablate.cluster.session import session
from ablate.cluster.statistics import with_statistics
from ablate.cluster.train import train_jobs
from ablate.cluster.tune import run_trials
from ablate.evaluate.scorer import ScorerSettings
from ablate.merge import statistics_kinds
from ablate.mixture import Mixture
from ablate.models.layout import Layout, layout_of
from ablate.models.load import load_model
from ablate.progress import bar, tell
from ablate.resources import Cluster
from ablate.search.candidates import ENSEMBLE, LOGIT_ENSEMBLE, Candidate, mixture_candidate
from ablate.search.journal import Journal, Scored
from ablate.search.questions import Questions
from ablate.standing import Standing, domains_of
from ablate.study import MergeSettings, Study
from ablate.train.job import TrainingJob
from ablate.train.stages import is_complete
from ablate.workspace import Workspace

Member = tuple[str, int]


def run_jobs(jobs: list[TrainingJob], workspace: Workspace, cluster: Cluster) -> None:
    """Train the jobs whose folders are not complete."""
    missing = [job for job in jobs if not is_complete(job.path, job)]
    if len(missing) < len(jobs):
        tell("skipped", what=f"{len(jobs) - len(missing)} of {len(jobs)} models", why="complete")
    if not missing:
        return
    total = sum(job.recipe.tokens for job in missing)
    with session(cluster), bar("train", total) as advance:
        train_jobs(missing, cluster, workspace, lambda done, _, detail: advance(done, detail))
        advance(total, "")
    workspace.refresh()


def answer(
    standing: Standing, questions: Questions, cluster: Cluster, total: int, wanted: set[Member]
) -> None:
    """Score on Ray what the journal lacks; Ray is not started when it lacks nothing."""
    if not questions.peek():
        tell("skipped", what="scoring", why="the journal holds every answer")
        return
    root, settings = standing.workspace.root, scorer_settings(standing, cluster)
    with session(cluster):
        layout, store = _published(standing, settings, cluster, wanted)
        for kind in statistics_kinds(name for name in questions.methods if name != ENSEMBLE):
            store = with_statistics(
                store, standing.study, standing.corpus, standing.pool, kind, cluster
            )
        with trials_metered(store, 4 * layout.numel, cluster):
            run_trials(
                questions,
                cluster=cluster,
                settings=settings,
                domains=domains_of(standing.corpus, root),
                store=store,
                total=total,
            )


def average_logits(standing: Standing, mixtures: Sequence[Mixture], cluster: Cluster) -> bool:
    """Score what the journal lacks of the mixtures' logit ensembles; return whether it lacked any.

    A mixture of one unit has none but the unit. Each domain is in the journal when its task ends.
    """
    journal, marks = Journal(standing.workspace.journal), standing.frame.domains
    merge = MergeSettings(method=LOGIT_ENSEMBLE)
    found = [mixture_candidate(standing.pool, one, merge) for one in mixtures]
    ensembles = [one for one in found if one.kind == "proxy"]
    missing = {
        name: [one for one in ensembles if mark not in journal.get(one.key).scores]
        for name, mark in marks.items()
    }
    open_domains = {name: of for name, of in missing.items() if of}
    if open_domains:
        _average_logits(standing, open_domains, journal, cluster)
    return bool(open_domains)


def _average_logits(
    standing: Standing,
    missing: Mapping[str, Sequence[Candidate]],
    journal: Journal,
    cluster: Cluster,
) -> None:
    root, settings = standing.workspace.root, scorer_settings(standing, cluster)
    members = {member for of in missing.values() for one in of for member, _ in one.coefficients}
    domains = [one for one in domains_of(standing.corpus, root) if one.name in missing]
    wanted = [(one, [candidate.coefficients for candidate in missing[one.name]]) for one in domains]
    with session(cluster):
        _, store = _published(standing, settings, cluster, members)
        for name, scores, seconds in averaged_logits(wanted, store, settings, cluster):
            mark, share = standing.frame.domains[name], seconds / len(scores)
            for one, score in zip(missing[name], scores, strict=True):
                scored = Scored(key=one.key, scores={mark: score}, evaluate_seconds=share)
                journal.append(one, scored)


def _published(
    standing: Standing, settings: ScorerSettings, cluster: Cluster, members: set[Member]
) -> tuple[Layout, Store]:
    """Put members into Ray's object store, once a node is known to hold an evaluator."""
    require_evaluator(cluster)
    layout = model_layout(standing.study, Path(settings.seed_folder))
    return layout, store_pool(standing.pool, layout, standing.workspace.root, members)


def scorer_settings(standing: Standing, cluster: Cluster) -> ScorerSettings:
    """Return how an evaluator of this cluster scores the study's models."""
    study = standing.study
    return ScorerSettings(
        seed_folder=str(standing.workspace.root / standing.pool.seed.folder),
        trust_remote_code=study.model.trust_remote_code,
        length=study.evaluation_length,
        precision=study.evaluate.precision,
        batch_tokens=cluster.trial.batch_tokens,
        threads=cluster.trial.threads,
        gpus=cluster.trial.gpus,
    )


def model_layout(study: Study, folder: Path) -> Layout:
    """Return the layout of a study's models, from one of them."""
    return layout_of(load_model(folder, trust_remote_code=study.model.trust_remote_code))
