"""The stage `validate`: mixtures trained for real, scored like all others, and compared."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np

from ablate.errors import RunError, StudyError
from ablate.models.pool import ModelPool
from ablate.on_ray import answer, average_logits, run_jobs
from ablate.progress import note, stage
from ablate.resources import Cluster
from ablate.search.candidates import ENSEMBLE
from ablate.search.journal import Journal
from ablate.search.leaderboard import Leaderboard
from ablate.search.questions import Questions
from ablate.search.table import Trial, write_table
from ablate.standing import Standing, standing_of, trained_mark
from ablate.study import MergeSettings, Study, ValidateSettings
from ablate.train.job import TrainingJob
from ablate.train.stages import TrainedRun
from ablate.validate.agreement import Agreement, Trained, assess, fit_trained
from ablate.validate.choice import stratified
from ablate.validate.knowledge_gradient import most_telling
from ablate.validate.runs import candidate_of, trained_pool, trained_run
from ablate.validate.subjects import MERGE, OBJECTIVE, Subject, features, with_objective
from ablate.workspace import Workspace, write_json


@stage("validate")
def validate_study(
    study: Study, workspace: Workspace, pool: ModelPool | None, cluster: Cluster
) -> tuple[Agreement, Leaderboard]:
    """Train the chosen mixtures, score them, and write agreement.json and the table.

    Returns the agreement, and the board as it is ranked with what was calibrated. Raises StudyError
    when no merged mixture is scored, WorkspaceError that names the verb to run first.
    """
    settings = study.validate_ or ValidateSettings()
    standing = standing_of(study, workspace, pool)
    board = standing.leaderboard(Journal(workspace.journal))
    chosen, control = _chosen(standing, board, settings)
    _train_and_score(standing, chosen, settings, cluster)
    for number in range(settings.rounds):
        subject = _most_telling(standing, settings)
        if subject is None:
            note(f"validate: all mixtures are trained after {number} rounds")
            break
        note(f"validate: round {number + 1} of {settings.rounds} trains {subject.name}")
        _train_and_score(standing, [subject], settings, cluster)
    found = _assessed(standing, settings, control, cluster)
    write_json(workspace.agreement, found.to_json())
    board = standing_of(study, workspace, pool).leaderboard(Journal(workspace.journal))
    write_table(workspace.table, board.trials, board.domains)
    return found, board


def choose_mixtures(
    known: Sequence[Subject], settings: ValidateSettings, done: Set[str] = frozenset()
) -> tuple[list[Subject], str | None]:
    """Return which of `known` to train, and the key of the control that was drawn blindly.

    The search's best is always among them. Mixtures whose keys are in `done`, trained already,
    count before others are chosen. Raises StudyError when there are none.
    """
    if not known:
        raise StudyError(
            "validate must have scored mixtures of two units or more whose text is in the corpus, "
            "got none; run `ablate search`"
        )
    scores = [_score(one) for one in known]
    keys = [one.mixture.key() for one in known]

    def spread(count: int, must: Sequence[int], control: bool) -> list[int]:
        return stratified(
            [one.size for one in known],
            scores,
            keys,
            max(count, len(must)),
            must=must,
            allowed_sizes=settings.sizes,
            control=control,
            rng_seed=settings.rng_seed,
        )

    best = min(range(len(known)), key=lambda place: (scores[place], keys[place]))
    first = spread(min(2, len(known)), [best], control=True)
    taken = [place for place, key in enumerate(keys) if key in done]
    places = spread(settings.mixtures, list(dict.fromkeys([*first, *taken])), control=False)
    sizes = {one.size for one in known}
    if settings.sizes is not None and not sizes & set(settings.sizes):
        raise StudyError(
            f"validate.sizes must name sizes of scored mixtures, got {list(settings.sizes)}; there "
            f"are {sorted(sizes)}"
        )
    chosen = [known[place] for place in places]
    return chosen, chosen[1].mixture.key() if len(chosen) > 1 else None


def mixture_jobs(standing: Standing) -> list[TrainingJob]:
    """Return the jobs of mixtures that are trained, and of those that `validate` would train."""
    settings = standing.study.validate_ or ValidateSettings()
    journal = Journal(standing.workspace.journal)
    board = standing.leaderboard(journal)
    chosen = _chosen(standing, board, settings)[0] if _trainable(standing, board) else []
    wanted = [standing.job(run) for run in _runs(standing, chosen, settings)]
    return [*(job for _, job in standing.trained(journal)), *wanted]


def _chosen(
    standing: Standing, board: Leaderboard, settings: ValidateSettings
) -> tuple[list[Subject], str | None]:
    done = {one.subject.mixture.key() for one in _trained(standing, board, settings)}
    return choose_mixtures(_trainable(standing, board), settings, done)


def _trainable(standing: Standing, board: Leaderboard) -> list[Subject]:
    """Return the merged mixtures of the study's space that can be trained, by key.

    A mixture of one unit is trained already; for units that were brought in there is no text. One
    that was merged for another evaluation text has only its ensemble under this one.
    """
    found = standing.subjects(board.trials)
    here = standing.corpus.partitions.keys() - standing.study.units.keys()
    asked = ENSEMBLE if standing.study.search.merge.method == ENSEMBLE else MERGE
    return [
        one
        for _, one in sorted(found.items())
        if one.mixture in board.space
        and here.issuperset(one.mixture.partitions)
        and asked in one.proxies
    ]


def _score(subject: Subject) -> float:
    """Return what the search went by: the merge's objective, or the ensemble's without a merge."""
    return subject.proxies[MERGE if MERGE in subject.proxies else ENSEMBLE][OBJECTIVE]


def _runs(
    standing: Standing, of: Sequence[Subject], settings: ValidateSettings
) -> list[TrainedRun]:
    return [
        trained_run(standing.study, standing.corpus, settings, one.mixture, replicate)
        for one in of
        for replicate in range(settings.replicates)
    ]


def _train_and_score(
    standing: Standing, of: Sequence[Subject], settings: ValidateSettings, cluster: Cluster
) -> None:
    """Train what is missing and score it; both are skipped where they are done."""
    runs = _runs(standing, of, settings)
    jobs = [standing.job(run) for run in runs]
    run_jobs(jobs, standing.workspace, cluster)
    pool = trained_pool(standing.pool, jobs, standing.workspace.root)
    candidates = [candidate_of(job, run) for job, run in zip(jobs, runs, strict=True)]
    journal = Journal(standing.workspace.journal)
    missing = [one for one in candidates if journal.missing(one.key, standing.frame.domains)]
    questions = Questions(
        pool=pool, frame=standing.frame, merge=MergeSettings(), journal=journal, base=missing
    )
    wanted = {member for one in missing for member, _ in one.coefficients}
    answer(replace(standing, pool=pool), questions, cluster, len(missing), wanted)
    failed = [known for one in missing if (known := journal.get(one.key)).error is not None]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(candidates)} trained mixtures could not be scored: "
            f"{failed[0].error}; run it again"
        )


def _assessed(
    standing: Standing, settings: ValidateSettings, control: str | None, cluster: Cluster
) -> Agreement:
    """Return the agreement over every mixture that is trained as the study asks."""
    board = standing.leaderboard(Journal(standing.workspace.journal))
    trained = _trained(standing, board, settings, control)
    if average_logits(standing, [one.subject.mixture for one in trained], cluster):
        board = standing.leaderboard(Journal(standing.workspace.journal))
        trained = _trained(standing, board, settings, control)
    kinds = {name: info.kind for name, info in sorted(standing.corpus.domains.items())}
    found = assess(trained, kinds, standing.frame.weights, settings.rng_seed)
    return replace(found, mark=trained_mark(standing), domains=dict(standing.frame.domains))


def _trained(
    standing: Standing,
    board: Leaderboard,
    settings: ValidateSettings,
    control: str | None = None,
) -> list[Trained]:
    """Return the mixtures that are trained as the study asks."""
    rows = {row.candidate.key: row for row in board.trained if row.objective is not None}
    found = []
    for subject in _trainable(standing, board):
        losses = _losses(standing, subject, settings, rows)
        if losses:
            mark = subject.mixture.key() == control
            found.append(Trained(subject=subject, losses=losses, control=mark))
    return found


def _losses(
    standing: Standing, subject: Subject, settings: ValidateSettings, rows: dict[str, Trial]
) -> tuple[dict[str, float], ...]:
    """Return the losses by target of a mixture's trainings, those that are there."""
    keys = [
        candidate_of(standing.job(run), run).key for run in _runs(standing, [subject], settings)
    ]
    return tuple(
        with_objective(rows[key].losses, standing.frame.weights) for key in keys if key in rows
    )


def _most_telling(standing: Standing, settings: ValidateSettings) -> Subject | None:
    """Return the untrained mixture whose training shrinks the doubt about the best one most."""
    board = standing.leaderboard(Journal(standing.workspace.journal))
    trained = _trained(standing, board, settings)
    done = {one.subject.mixture.key() for one in trained}
    known = _trainable(standing, board)
    sizes = settings.sizes
    untrained = np.array(
        [one.mixture.key() not in done and (sizes is None or one.size in sizes) for one in known]
    )
    if not untrained.any():
        return None
    weights = standing.frame.weights
    _, whole = fit_trained(trained, weights, weights)
    if whole is None:
        raise StudyError(
            f"validate.rounds must follow four trained mixtures or more, got {len(trained)}; "
            "raise validate.mixtures"
        )
    columns = {name: features(known, name) for name in weights}
    mean, covariance, noise = whole.belief(columns)
    return known[most_telling(mean, covariance, noise, open=untrained)]
