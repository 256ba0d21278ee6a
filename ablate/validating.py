"""The stage `validate`: mixtures trained for real, scored like all others, and compared."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from ablate.errors import RunError, StudyError
from ablate.models.pool import ModelPool
from ablate.on_ray import answer, average_logits, run_jobs
from ablate.progress import note, stage
from ablate.resources import Cluster
from ablate.search.candidates import ENSEMBLE
from ablate.search.journal import Journal
from ablate.search.leaderboard import Leaderboard
from ablate.search.questions import Questions
from ablate.search.table import write_table
from ablate.standing import Standing, standing_of, trained_mark
from ablate.study import MergeSettings, Study, ValidateSettings
from ablate.train.job import TrainingJob
from ablate.train.stages import TrainedRun
from ablate.validate.agreement import Agreement, Trained, assess, fit_trained
from ablate.validate.calibration import LEAST_TO_CALIBRATE
from ablate.validate.choice import drawn_blindly, stratified
from ablate.validate.knowledge_gradient import most_telling
from ablate.validate.predictor import Predictor
from ablate.validate.runs import candidate_of, trained_pool, trained_run
from ablate.validate.subjects import MERGE, Subject, features, with_objective
from ablate.workspace import Workspace, write_json


@stage("validate")
def validate_study(
    study: Study, workspace: Workspace, pool: ModelPool | None, cluster: Cluster, rounds: int = 0
) -> tuple[Agreement, Leaderboard]:
    """Train the chosen mixtures, score them, and write agreement.json and the table.

    `validate.rounds` of the study are done once: with `mixtures + rounds` trained nothing is left
    to do. `rounds` are so many more whatever is trained. Returns the agreement, and the board as
    it is ranked with what was calibrated. Raises StudyError when no merged mixture is scored, or
    when too few are trained for rounds, WorkspaceError that names the verb to run first.
    """
    settings = study.validate_ or ValidateSettings()
    standing = standing_of(study, workspace, pool)
    board = standing.leaderboard(Journal(workspace.journal))
    known = _trainable(standing, board)
    chosen, control = _chosen(standing, board, settings)
    if len(chosen) < settings.mixtures:
        of_sizes = f" of {', '.join(map(str, settings.sizes))} partitions" if settings.sizes else ""
        note(
            f"validate: trains {len(chosen)} mixtures of {settings.mixtures} asked for: no more"
            f"{of_sizes} are scored that can be trained; raise search.trials, or allow more sizes"
        )
    rounds += rounds_left(known, chosen, settings)
    if rounds:
        check_rounds(known, chosen, settings)
    _train_and_score(standing, chosen, settings, cluster)
    for number in range(rounds):
        following = _most_telling(standing, settings)
        if following is None:
            note(f"validate: all mixtures are trained after {number} rounds")
            break
        subject, why = following
        note(f"validate: round {number + 1} of {rounds} trains {subject.name}, {why}")
        _train_and_score(standing, [subject], settings, cluster)
    found = _assessed(standing, settings, control, cluster)
    write_json(workspace.agreement, found.to_json())
    board = standing_of(study, workspace, pool).leaderboard(Journal(workspace.journal))
    write_table(workspace.table, board.trials, board.domains)
    return found, board


def choose_mixtures(
    known: Sequence[Subject], settings: ValidateSettings, done: Set[str] = frozenset()
) -> tuple[list[Subject], str | None]:
    """Return which of `known`, best first, to train, and the key of the control among them.

    Mixtures whose keys are in `done`, trained already, count before others are chosen. There is
    always room made for the first, the search's best, where anything is chosen beside them, and
    then for a control that the seed draws. Raises StudyError when there are none.
    """
    if not known:
        raise StudyError(
            "validate must have scored mixtures of two units or more whose text is in the corpus "
            "and whose units and seed are scored, got none; run `ablate search`"
        )
    sizes, keys = [one.size for one in known], [one.mixture.key() for one in known]
    allowed = [key for one, key in zip(known, keys, strict=True) if _is_allowed(one, settings)]
    if not allowed:
        raise StudyError(
            f"validate.sizes must name sizes of scored mixtures, got {list(settings.sizes or ())}; "
            f"there are {sorted(set(sizes))}"
        )
    control = keys.index(allowed[drawn_blindly(allowed, settings.rng_seed)])
    trained = [place for place, key in enumerate(keys) if key in done]
    places = stratified(
        sizes,
        range(len(known)),
        keys,
        max(settings.mixtures, len(trained)),
        must=[0, control],
        done=trained,
        allowed_sizes=settings.sizes,
    )
    return [known[place] for place in places], keys[control] if control in places else None


def rounds_left(
    known: Sequence[Subject], chosen: Sequence[Subject], settings: ValidateSettings
) -> int:
    """Return how many of the study's rounds are still to be done once all `chosen` are trained."""
    beyond = max(0, len(chosen) - settings.mixtures)
    return max(0, settings.rounds - beyond) if len(chosen) < len(known) else 0


def check_rounds(
    known: Sequence[Subject], chosen: Sequence[Subject], settings: ValidateSettings
) -> None:
    """Raise StudyError where rounds would follow fewer mixtures than a calibration takes."""
    if len(chosen) < min(LEAST_TO_CALIBRATE, sum(_is_allowed(one, settings) for one in known)):
        raise StudyError(
            f"validate.rounds must follow {LEAST_TO_CALIBRATE} trained mixtures or more, got "
            f"{len(chosen)}; raise validate.mixtures to {LEAST_TO_CALIBRATE}, or leave out the "
            "rounds"
        )


def _is_allowed(one: Subject, settings: ValidateSettings) -> bool:
    return settings.sizes is None or one.size in settings.sizes


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
    mixtures = (row.candidate.mixture for row in board.mixtures)
    ranks = {one.key(): rank for rank, one in enumerate(mixtures) if one is not None}
    known = sorted(_trainable(standing, board), key=lambda one: ranks[one.mixture.key()])
    return choose_mixtures(known, settings, done)


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
        runs = _runs(standing, [subject], settings)
        keys = [candidate_of(standing.job(run), run).key for run in runs]
        there = [rows[key] for key in keys if key in rows]
        if there:
            found.append(
                Trained(
                    subject=subject,
                    tokens=there[0].candidate.tokens,
                    losses=tuple(with_objective(r.losses, standing.frame.weights) for r in there),
                    control=subject.mixture.key() == control,
                )
            )
    return found


def _most_telling(standing: Standing, settings: ValidateSettings) -> tuple[Subject, str] | None:
    """Return the mixture to train next, and why; None when all are trained.

    The one whose training shrinks the doubt about the best one most; the next of the even spread
    where what is trained predicts none of those that are left.
    """
    board = standing.leaderboard(Journal(standing.workspace.journal))
    trained = _trained(standing, board, settings)
    done = {one.subject.mixture.key() for one in trained}
    known = _trainable(standing, board)

    def is_open(one: Subject) -> bool:
        return one.mixture.key() not in done and _is_allowed(one, settings)

    if not any(map(is_open, known)):
        return None
    weights = standing.frame.weights
    fits, _ = fit_trained(trained, weights, weights)
    found = Predictor(domains=standing.frame.domains, fits=fits)
    whole = found.objective(weights)
    foretold = [one for one in known if found.used <= one.proxies.keys()]
    if whole is None or not any(map(is_open, foretold)):
        more = settings.model_copy(update={"mixtures": len(done) + 1})
        chosen, _ = _chosen(standing, board, more)
        subject = next(one for one in chosen if one.mixture.key() not in done)
        return subject, "the next of the spread: nothing is calibrated for it"
    columns = {name: features(foretold, name) for name in weights}
    mean, covariance, noise = whole.belief(columns)
    place = most_telling(mean, covariance, noise, open=[is_open(one) for one in foretold])
    return foretold[place], "which tells most about the best one"
