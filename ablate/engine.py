"""The stages in order: prepare, train, search, score, run. Each skips what is complete and right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ablate.cluster.session import TaskMap, kept_session
from ablate.cluster.tracking import tracked
from ablate.corpus import Corpus
from ablate.corpus import prepare as prepare_corpus
from ablate.here import answer_here, score_ensemble, search_ensemble
from ablate.imports import check_imports, import_seed, imported_units
from ablate.merge import merge_method
from ablate.mixture import Mixture
from ablate.models.checkpoint import published_digest
from ablate.models.pool import ModelPool, SeedModel, UnitModel, write_pool
from ablate.on_ray import answer, model_layout, run_jobs, scorer_settings
from ablate.planning.work import work_of
from ablate.plugins import resolve
from ablate.progress import note, stage
from ablate.report import ReportContent, figures_of, gather, render, write_figures
from ablate.resources import Cluster
from ablate.search.algorithms import ALGORITHMS, SEVERAL_GOALS, Algorithm, Task
from ablate.search.algorithms.by_groups import ByGroups
from ablate.search.algorithms.own import Own
from ablate.search.candidates import (
    ENSEMBLE,
    Candidate,
    base_candidates,
    mixture_candidate,
)
from ablate.search.check import check_search
from ablate.search.choice import choose_algorithm, goes_by_groups
from ablate.search.conversation import Conversation
from ablate.search.journal import Journal
from ablate.search.leaderboard import Leaderboard
from ablate.search.predictors.predictor import one_thread
from ablate.search.questions import Question, Questions, record
from ablate.search.spaces.groups import partition_groups
from ablate.search.table import Trial, write_table
from ablate.stage_log import logged
from ablate.standing import Standing, current_standing, frame_of, space_of, standing_of, text_of
from ablate.study import Study, load_study, to_yaml
from ablate.train.deepspeed_config import check_stage
from ablate.train.job import TrainingJob
from ablate.train.recipe import check_batch, trained_recipe, unit_recipe
from ablate.train.stages import seed_job, unit_jobs
from ablate.validate.agreement import Agreement
from ablate.validating import validate_study
from ablate.workspace import Workspace, write_atomic

Member = tuple[str, int]


def prepare(study: Study, *, cluster: Cluster | None = None) -> Corpus:
    """Return the prepared corpus: partitions, units, evaluation tokens.

    Raises CorpusError or StudyError in one line that names file, line or key.
    """
    with _held(study, checked=False) as workspace:
        return _prepare(study, workspace, cluster or Cluster())


def train(study: Study, *, cluster: Cluster | None = None) -> ModelPool:
    """Return the pool: the seed and one model per base unit, trained where they are missing."""
    where = cluster or Cluster()
    with _held(study) as workspace, tracked(study, workspace, where, "train"):
        return _train(study, workspace, where)


def search(
    study: Study, pool: ModelPool | None = None, *, cluster: Cluster | None = None
) -> Leaderboard:
    """Return the leaderboard after scoring the seed, all units and the search's mixtures.

    `pool` defaults to the study's own; a mixture that was scored before is not scored again.
    """
    where = cluster or Cluster()
    with _held(study, asked=True) as workspace, tracked(study, workspace, where, "search"):
        return _search(study, workspace, pool, where)


def validate(
    study: Study,
    pool: ModelPool | None = None,
    board: Leaderboard | None = None,
    *,
    cluster: Cluster | None = None,
    rounds: int = 0,
) -> Agreement:
    """Return how well proxies predict models truly trained on mixtures, and calibrate them.

    The mixtures are chosen from those that a search scored (`validate` in the study says how many
    and how); `pool` and `board` are the study's own, given to say what comes before. `rounds` more
    are trained beside those that the study asks for, each the one that tells most about the best.
    """
    where = cluster or Cluster()
    with _held(study, asked=True) as workspace, tracked(study, workspace, where, "validate"):
        found, _ = validate_study(study, workspace, pool, where, rounds)
        return found


def run(study: Study, *, cluster: Cluster | None = None) -> Leaderboard:
    """Prepare, train, search, validate where the study asks for it, and report.

    Returns the leaderboard.
    """
    where = cluster or Cluster()
    with _held(study) as workspace, tracked(study, workspace, where, "run"):
        pool = _train(study, workspace, where)
        board = _search(study, workspace, pool, where)
        if study.validate_ is not None:
            _, board = validate_study(study, workspace, pool, where)
        _report(standing_of(study, workspace, pool), board, where)
        return board


def report(study: Study, *, cluster: Cluster | None = None) -> Path:
    """Write report.html, one self-contained page about what stands in the workspace; return it.

    `cluster` is what costs are reckoned for. Raises WorkspaceError that names the verb to run
    first, StudyError when no mixture is scored.
    """
    workspace = study.open_workspace()
    standing = current_standing(study, workspace)
    with workspace.lock(), logged(workspace.logs):
        board = standing.leaderboard(Journal(workspace.journal))
        return _report(standing, board, cluster or Cluster())


def report_figures(
    study: Study, folder: Path, formats: Sequence[str], *, cluster: Cluster | None = None
) -> tuple[Path, ...]:
    """Write the report's figures as files (png, svg, pdf) and return them.

    Raises StudyError for another format, and where kaleido or Chrome is missing.
    """
    standing = current_standing(study, study.open_workspace())
    board = standing.leaderboard(Journal(standing.workspace.journal))
    figures = figures_of(_content(standing, board, cluster or Cluster()))
    return write_figures(figures, folder, formats)


@stage("report")
def _report(standing: Standing, board: Leaderboard, cluster: Cluster) -> Path:
    path = standing.workspace.report
    write_atomic(path, render(_content(standing, board, cluster)).encode())
    return path


def _content(standing: Standing, board: Leaderboard, cluster: Cluster) -> ReportContent:
    with one_thread():  # small fits: more threads only wait for each other
        return gather(
            board,
            study=standing.study,
            corpus=standing.corpus,
            pool=standing.pool,
            plan=work_of(standing.study, cluster=cluster, corpus=standing.corpus).to_json(),
            agreement=standing.agreement,
            texts=standing.frame.domains,
        )


def score(pool: ModelPool, mixture: Mixture, *, cluster: Cluster | None = None) -> Trial:
    """Return the scores of one mixture: one merge, one evaluation, kept in the journal.

    The question (domains, objective, merge) is that of the study in the pool's workspace.
    """
    root = Path(pool.root)
    study = load_study(root / "study.yaml")
    with _held(study, asked=True) as workspace:
        return _score(study, workspace, pool, mixture, cluster or Cluster())


def score_study(study: Study, mixture: Mixture, *, cluster: Cluster | None = None) -> Trial:
    """Return the scores of one mixture under a study whose pool is trained."""
    with _held(study, asked=True) as workspace:
        return _score(study, workspace, None, mixture, cluster or Cluster())


def leaderboard(study: Study) -> Leaderboard:
    """Return what is scored so far; nothing is trained, scored or written."""
    workspace = study.open_workspace()
    return standing_of(study, workspace).leaderboard(Journal(workspace.journal))


@contextmanager
def _held(study: Study, *, asked: bool = False, checked: bool = True) -> Iterator[Workspace]:
    """Yield the study's workspace, locked for this driver, with the resolved study in it.

    A pool that is only `asked` must be what the study trains; where it is not, or the search is
    `checked` and cannot start, nothing is written. Ray is started when a stage needs it, and kept
    to the end.
    """
    if checked:
        check_search(study)
    workspace = study.open_workspace()
    with workspace.lock(), logged(workspace.logs), kept_session():
        if asked:
            current_standing(study, workspace)
        write_atomic(workspace.study, to_yaml(study).encode())
        yield workspace


@stage("prepare")
def _prepare(study: Study, workspace: Workspace, cluster: Cluster) -> Corpus:
    return prepare_corpus(study, workspace, TaskMap(cluster))


@stage("train")
def _train(study: Study, workspace: Workspace, cluster: Cluster) -> ModelPool:
    check_imports(study)
    trains = study.model.path is None or study.corpus.sources
    if trains and not workspace.pool_json.exists():
        # What will not train is refused before hours go into its corpus.
        check_stage(cluster.deepspeed)
        check_batch(trained_recipe(study, study.train.batch_tokens), cluster.train)
    corpus = _prepare(study, workspace, cluster)
    _check_question(study, corpus)
    first = seed_job(study, corpus, workspace)
    seeds = [first] if first else []
    seed = _trained_seed(first, workspace) if first else import_seed(study, corpus, workspace)
    folder = workspace.root / seed.folder
    jobs = [
        job
        for job in unit_jobs(study, corpus, workspace, seed.fingerprint, folder)
        if job.metadata["partition"] not in study.units
    ]
    if study.units:
        # What is brought in is checked against the seed before anything else is trained.
        run_jobs(seeds, workspace, cluster)
        imported_units(study, corpus, folder, model_layout(study, folder))
    # One call for all: the units wait for their seed, and worker groups start up once.
    run_jobs([*seeds, *jobs], workspace, cluster)
    layout = model_layout(study, folder)
    brought = imported_units(study, corpus, folder, layout)
    pool = ModelPool(
        seed=replace(seed, digest=published_digest(folder)),
        units=(*brought, *(_unit(job, workspace) for job in jobs)),
        layout_fingerprint=layout.fingerprint,
        tokenizer=corpus.tokenizer.fingerprint,
        root=str(workspace.root),
    )
    write_pool(workspace, pool)
    return pool


def _check_question(study: Study, corpus: Corpus) -> None:
    """Refuse an impossible space or objective before anything is trained."""
    units = {name: info.units for name, info in corpus.partitions.items()}
    tokens = {
        name: sum(unit_recipe(study, size).tokens for size in info.unit_tokens)
        for name, info in corpus.partitions.items()
    }
    for name, folders in study.units.items():
        units[name] = len(folders)
        tokens.setdefault(name, 0)
    space_of(study, units, tokens, text_of(corpus, tokens))
    frame_of(study, corpus)


def _trained_seed(job: TrainingJob, workspace: Workspace) -> SeedModel:
    """Return the seed that a job trains; its digest is not known before it has."""
    folder = str(job.path.relative_to(workspace.root))
    return SeedModel(fingerprint=job.fingerprint, folder=folder, digest="")


def _unit(job: TrainingJob, workspace: Workspace) -> UnitModel:
    return UnitModel(
        partition=job.metadata["partition"],
        index=job.metadata["unit"],
        fingerprint=job.fingerprint,
        folder=str(job.path.relative_to(workspace.root)),
        digest=published_digest(job.path),
        tokens=job.recipe.tokens,
    )


@stage("search")
def _search(
    study: Study, workspace: Workspace, pool: ModelPool | None, cluster: Cluster
) -> Leaderboard:
    standing = standing_of(study, workspace, pool)
    journal = Journal(workspace.journal)
    search = study.search
    name, why = choose_algorithm(study, standing.space.count())
    note(f"search: {name}, {why}")
    base = base_candidates(standing.pool)
    merged = search.merge.method != ENSEMBLE
    questions = Questions(
        pool=standing.pool,
        frame=standing.frame,
        merge=search.merge,
        journal=journal,
        base=base,
        begin=(lambda: begin_conversation(standing, name)) if merged else None,
        kept=standing.kept().keys(),
        racer=standing.racer(),
        foretell=lambda: _foretell(standing, journal, name),
    )
    total = len(base) + (_proposals(standing) if merged else 0)
    answer(standing, questions, cluster, total, set(standing.pool.by_member))
    if not merged:
        search_ensemble(standing, journal, begin_conversation(standing, name))
    board = standing.leaderboard(journal)
    write_table(workspace.table, board.trials, board.domains)
    return board


def _foretell(
    standing: Standing, journal: Journal, name: str
) -> Callable[[Candidate], float] | None:
    """Return what predicts trained losses for a search, where it can use them.

    A race compares losses on the same windows, a gradient is that of the merged loss, of several
    merges the lowest counts, and only one objective is predicted: those searches go by the scores,
    and only the ranking of what they scored by predictions.
    """
    search = standing.study.search
    by_scores = search.racing is not None or search.merge.alternatives or name in SEVERAL_GOALS
    if by_scores or getattr(ALGORITHMS.get(name), "wants_gradient", False):
        return None
    found = standing.foretell(journal)
    if found is not None:
        note("search: mixtures are compared by the trained loss that `validate` calibrated")
    return found


def begin_conversation(standing: Standing, name: str) -> Conversation:
    """Return the talk with the search's algorithm; the pool's units are scored by now."""
    search, proxy = standing.study.search, standing.ensemble()
    weights = standing.frame.weights

    def ensemble(vectors: np.ndarray) -> np.ndarray:
        assert proxy is not None
        return proxy.objective(standing.space.names, vectors, weights)

    task = Task(
        space=standing.space,
        rng_seed=search.rng_seed,
        trials=search.trials,
        predictor=search.predictor,
        goals=len(search.objectives) if name in SEVERAL_GOALS else 1,
        ensemble=None if proxy is None else ensemble,
        ensemble_best=None if proxy is None else proxy.best(standing.space, weights)[0],
    )
    build = resolve(name, ALGORITHMS, "search.algorithm")
    if name not in ALGORITHMS:
        build = partial(Own, name, build)
    if goes_by_groups(standing.study, name):
        groups = partition_groups(search.space, standing.pool.units_of())
        algorithm: Algorithm = ByGroups(task, groups, build)
    else:
        algorithm = build(task)
    at_once = None if search.racing is None else search.racing.at_once
    return Conversation(algorithm, search.trials, at_once)


def _proposals(standing: Standing) -> int:
    """Return how many mixtures a search scores at most, beside the units."""
    count, trials = standing.space.count(), standing.study.search.trials
    units = standing.pool.units_of().items()
    # A partition of one unit is a mixture and a base model at once: one score.
    alone = sum(n == 1 and Mixture.uniform([name]) in standing.space for name, n in units)
    mixtures = (trials if count is None else min(count, trials)) - alone
    return mixtures * len(standing.study.search.merge.methods)


@stage("score")
def _score(
    study: Study, workspace: Workspace, pool: ModelPool | None, mixture: Mixture, cluster: Cluster
) -> Trial:
    standing = standing_of(study, workspace, pool)
    mixture.require_known(standing.pool.units_of())
    merge = study.search.merge
    candidate = mixture_candidate(standing.pool, mixture, merge)
    journal = Journal(workspace.journal)
    if candidate.method == ENSEMBLE:
        return score_ensemble(standing, journal, mixture)
    missing = journal.missing(candidate.key, standing.frame.domains)
    question = Question(candidate=candidate, domains=tuple(missing))
    if missing and _fits_here(candidate, cluster):
        scored = answer_here(standing, question, scorer_settings(standing, cluster))
        record(journal, standing.frame, candidate, scored)
    elif missing:
        questions = Questions(
            pool=standing.pool,
            frame=standing.frame,
            merge=merge,
            journal=journal,
            base=[candidate],
        )
        answer(standing, questions, cluster, 1, {member for member, _ in candidate.coefficients})
    return standing.trial(journal, candidate)


def _fits_here(candidate: Candidate, cluster: Cluster) -> bool:
    """Return whether one question is best answered in this process: no cluster, no statistics."""
    here = cluster.address is None and not cluster.trial.gpus
    return here and merge_method(candidate.method).statistics is None
