"""From a study and its corpus to the models that must be trained: pure functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import StudyError
from ablate.models.checkpoint import checkpoint_digest
from ablate.study import Study
from ablate.train.finished import MOMENTS_FILE, is_complete
from ablate.train.job import Start, TokenSlice, TrainingJob, job_fingerprint
from ablate.train.recipe import check_tokens, seed_recipe, unit_recipe
from ablate.workspace import Workspace, fingerprint, slug

if TYPE_CHECKING:
    from ablate.corpus.values import Corpus, PartitionInfo, TokenFile

__all__ = ["is_complete", "seed_job", "unit_jobs", "unit_slices"]


def seed_job(study: Study, corpus: Corpus, workspace: Workspace) -> TrainingJob | None:
    """Return the job that pre-trains the seed model, or None when the study has no seed sources.

    Then the checkpoint at `model.path` is the seed as it stands. Raises StudyError when the seed's
    text does not fill a sequence.
    """
    if not study.seed.sources:
        return None
    file = corpus.seed
    if file is None:
        raise StudyError(
            "seed.sources must have been prepared, got a corpus without seed tokens; run "
            "`ablate prepare`"
        )
    recipe = seed_recipe(study, file.tokens)
    check_tokens("the seed's text", file.tokens, recipe)
    slices = (_slice(file, 0, file.tokens, file.digest),)
    start = _seed_start(study, corpus)
    mark = job_fingerprint("seed", start.mark, slices, recipe)
    return TrainingJob(
        **_paths(workspace, f"seed-{mark}"),
        kind="seed",
        start=start,
        slices=slices,
        recipe=recipe,
        save_moments=study.train.carry_moments,
    )


def unit_jobs(
    study: Study,
    corpus: Corpus,
    workspace: Workspace,
    seed_fingerprint: str,
    seed_folder: Path | str,
) -> list[TrainingJob]:
    """Return the job of every base unit, by partition name and index.

    All start from the seed model in `seed_folder`. Raises StudyError when the seed's Adam moments
    are to be carried and it has none, or when a unit does not fill a sequence.
    """
    moments = None
    if study.train.carry_moments:
        moments = str(Path(seed_folder) / MOMENTS_FILE)
        if not study.seed.sources and not Path(moments).is_file():
            raise StudyError(
                f"train.carry_moments must be false for a seed without {MOMENTS_FILE}, got true "
                f"and {seed_folder}; set it to false, or train the seed in this study"
            )
    start = Start(
        mark=seed_fingerprint,
        folder=str(seed_folder),
        trust_remote_code=study.model.trust_remote_code,
        moments=moments,
    )
    jobs = []
    for name, info in sorted(corpus.partitions.items()):
        for index in range(info.units):
            slices = unit_slices(study, info, index)
            there = sum(piece.tokens for piece in slices)
            recipe = unit_recipe(study, there)
            check_tokens(f"unit {index} of partition '{name}'", there, recipe)
            mark = job_fingerprint("unit", start.mark, slices, recipe)
            job = TrainingJob(
                **_paths(workspace, f"unit-{slug(name)}-{index}-{mark}"),
                kind="unit",
                start=start,
                slices=slices,
                recipe=recipe,
                metadata={"partition": name, "unit": index},
            )
            jobs.append(job)
    return jobs


def unit_slices(study: Study, info: PartitionInfo, index: int) -> tuple[TokenSlice, ...]:
    """Return the token ranges of unit `index`, `[index * unit_tokens, ...)` of the train file.

    With `short_units: repeat` a partition below one unit is read again until the unit is full.
    """
    unit, there = study.corpus.unit_tokens, info.train.tokens
    start = index * unit
    stop = min(start + unit, there)
    digest = info.unit_digests[index]
    if stop - start == unit or study.corpus.short_units != "repeat":
        return (_slice(info.train, start, stop, digest),)
    whole, rest = divmod(unit, there)
    slices = [_slice(info.train, 0, there, info.train.digest)] * whole
    if rest:
        slices.append(_slice(info.train, 0, rest, None))
    return tuple(slices)


def _slice(file: TokenFile, start: int, stop: int, digest: str | None) -> TokenSlice:
    return TokenSlice(
        path=file.path,
        start=start,
        stop=stop,
        digest=digest,
        file_tokens=file.tokens,
        file_digest=file.digest,
    )


def _seed_start(study: Study, corpus: Corpus) -> Start:
    model, tokenizer = study.model, corpus.tokenizer
    if model.path is not None:
        return Start(
            mark=checkpoint_mark(model.path),
            folder=model.path,
            trust_remote_code=model.trust_remote_code,
        )
    plain: dict[str, Any] = model.model_dump(mode="json")
    mark = fingerprint(
        {
            "model": {"preset": model.preset, "overrides": plain["overrides"]},
            "tokenizer": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "eos_token_id": tokenizer.eos_token_id,
            "rng_seed": study.train.rng_seed,
        }
    )
    return Start(
        mark=mark,
        model=plain,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
    )


def checkpoint_mark(path: str) -> str:
    """Return the fingerprint of a checkpoint: of its weights when it is a folder, else its id."""
    if Path(path).is_dir():
        return fingerprint({"weights": checkpoint_digest(Path(path))})
    return fingerprint({"hub": path})


def _paths(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return the fields of a job that follow from its full name."""
    return {
        "name": name,
        "workspace": str(workspace.root),
        "folder": str(workspace.models / name),
        "resume_folder": str(workspace.resume_folder(name)),
        "log_file": str(workspace.logs / f"train-{name}.jsonl"),
        "tokenizer_folder": str(workspace.tokenizer),
    }
