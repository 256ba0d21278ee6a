"""What stands in a workspace, and what no study state refers to any more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablate.corpus import Corpus, read_corpus
from ablate.evaluate.gathering import FOLDER as STATISTICS
from ablate.evaluate.token_nats import FOLDER as LIKELIHOODS
from ablate.models.checkpoint import TRAINING, read_training
from ablate.models.pool import ModelPool, read_pool
from ablate.search.journal import Journal
from ablate.standing import standing_of
from ablate.stores import TEMPORARY_PREFIX, entries, stored_bytes
from ablate.study import Study
from ablate.train.stages import is_complete, seed_job, unit_jobs
from ablate.validating import mixture_jobs
from ablate.workspace import Workspace, file_digest, remove

TOKENIZER = "tokenizer.json"
Seed = tuple[str, Path]
"""A seed model's fingerprint and folder."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Counts of what is done, and the verb to run next."""

    workspace: str
    prepared: bool
    partitions: int
    units: int
    units_trained: int
    seed_trained: bool
    scored: int
    mixtures_scored: int
    mixtures_trained: int
    failed: int
    next: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def status(study: Study) -> Status:
    """Return the state of a study's workspace; nothing is changed."""
    workspace = study.open_workspace()
    corpus = read_corpus(workspace)
    pool = read_pool(workspace)
    seed_done, done, wanted = False, 0, 0
    if corpus is not None:
        first = seed_job(study, corpus, workspace)
        seed = _likeliest_seed(study, corpus, workspace, pool)
        seed_done = seed is not None if first is None else is_complete(first.path, first)
        jobs = [] if seed is None else unit_jobs(study, corpus, workspace, *seed)
        jobs = [job for job in jobs if job.metadata["partition"] not in study.units]
        imported = sum(len(folders) for folders in study.units.values())
        wanted = len(jobs) + imported
        done = sum(is_complete(job.path, job) for job in jobs) + imported
    trials, mixtures, trained, failed, validated = 0, 0, 0, 0, False
    if corpus is not None and pool is not None:
        standing = standing_of(study, workspace, pool)
        board = standing.leaderboard(Journal(workspace.journal), ensembles=False)
        trials, mixtures, failed = len(board.trials), len(board.mixtures), len(board.failed)
        trained = len({row.candidate.mixture for row in board.trained})
        validated = standing.agreement is not None
    return Status(
        workspace=workspace.location,
        prepared=corpus is not None,
        partitions=len(corpus.partitions) if corpus else 0,
        units=wanted,
        units_trained=done,
        seed_trained=seed_done,
        scored=trials,
        mixtures_scored=mixtures,
        mixtures_trained=trained,
        failed=failed,
        next=_next(corpus is not None, pool is not None and done == wanted, mixtures, validated),
    )


def _likeliest_seed(
    study: Study, corpus: Corpus, workspace: Workspace, pool: ModelPool | None
) -> Seed | None:
    """Return the seed that units start from: the one made last, else the pool's."""
    found = _seeds(study, corpus, workspace)
    if found or pool is None:
        return found[-1] if found else None
    return pool.seed.fingerprint, workspace.root / pool.seed.folder


def _seeds(study: Study, corpus: Corpus, workspace: Workspace) -> list[Seed]:
    """Return the seeds that units of this study may start from, none where they are not known.

    It is the one that the study trains, or all that were made from the checkpoint at `model.path`
    for this tokenizer, oldest first: which of them it is now only its weights tell.
    """
    job = seed_job(study, corpus, workspace)
    if job is not None:
        return [(job.fingerprint, job.path)]
    tokenizer = workspace.tokenizer / TOKENIZER
    digest = file_digest(tokenizer) if tokenizer.is_file() else None
    found: list[Seed] = []
    for folder in entries(workspace.models):
        training = read_training(folder) or {}
        mark, files = str(training.get("fingerprint")), training.get("files")
        same = isinstance(files, dict) and files.get(TOKENIZER, "") == digest
        imported = same and training.get("imported_from") == study.model.path
        if imported and workspace.seed_folder(mark) == folder:
            found.append((mark, folder))
    return sorted(found, key=lambda seed: (seed[1] / TRAINING).stat().st_mtime)


def _next(prepared: bool, trained: bool, mixtures: int, validated: bool) -> str:
    if not prepared:
        return "prepare"
    if not trained:
        return "train"
    if not mixtures:
        return "search"
    return "export" if validated else "validate"


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Folders that nothing refers to, and their bytes."""

    folders: tuple[Path, ...]
    bytes: int


def garbage(study: Study) -> Garbage:
    """Return what `clean` would remove: models of no pool, left-over and temporary folders.

    No model while it is not known which seed the study's units start from.
    """
    workspace = study.open_workspace()
    kept = _referred(study, workspace)
    corpus = read_corpus(workspace)
    slugs = _corpus_folders(corpus)
    found = [
        folder
        for parent, keep in ((workspace.models, kept), (workspace.corpus, slugs))
        if keep is not None
        for folder, size in entries(parent).items()
        if size is None and folder.name not in keep
    ]
    found += _left_scores(workspace)
    there = entries(workspace.root)
    found += [path for path in there if path.name.startswith(TEMPORARY_PREFIX)]
    return Garbage(folders=tuple(found), bytes=sum(_size(folder) for folder in found))


def _left_scores(workspace: Workspace) -> list[Path]:
    """Return token likelihoods and merge statistics of units that the pool has no more."""
    pool = read_pool(workspace)
    units = {unit.fingerprint for unit in pool.units} if pool else set()
    scores = [*entries(workspace.root / LIKELIHOODS), *entries(workspace.root / STATISTICS)]
    return sorted(
        path for path in scores if pool is not None and path.name.partition("-")[0] not in units
    )


def clean(study: Study) -> Garbage:
    """Remove what `garbage` lists and return it."""
    with study.open_workspace().lock():
        found = garbage(study)
        for path in found.folders:
            remove(path)
    return found


def _referred(study: Study, workspace: Workspace) -> set[str] | None:
    """Return the names under models/ that the pool and runs of this study refer to.

    None keeps everything: without corpus and seed it is not known what runs have left there.
    """
    corpus, pool = read_corpus(workspace), read_pool(workspace)
    seeds = [] if corpus is None else _seeds(study, corpus, workspace)
    if corpus is None or not seeds:
        return None
    first = seed_job(study, corpus, workspace)
    jobs = [first] if first else []
    for mark, folder in seeds:
        jobs += unit_jobs(study, corpus, workspace, mark, folder)
    kept = {folder.name for _, folder in seeds}
    if pool is not None:
        jobs += mixture_jobs(standing_of(study, workspace, pool))
        kept |= {Path(pool.seed.folder).name} | {Path(unit.folder).name for unit in pool.units}
    return kept | {job.path.name for job in jobs} | {Path(job.resume_folder).name for job in jobs}


def _corpus_folders(corpus: Any) -> set[str] | None:
    """Return the names under corpus/ that are in use; None keeps everything."""
    if corpus is None:
        return None
    files = [info.train for info in corpus.partitions.values()]
    files += [info.tokens_file for info in corpus.domains.values()]
    files += [corpus.seed] if corpus.seed else []
    return {Path(file.path).parent.name for file in files} | {"@tokenizer"}


def _size(path: Path) -> int:
    stored = stored_bytes(path)
    if stored is not None:
        return stored
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
