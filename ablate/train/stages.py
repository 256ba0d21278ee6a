"""From a study and its corpus to the models that must be trained: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.models.checkpoint import checkpoint_digest
from ablate.models.pool import SeedModel
from ablate.models.sources import hub_revision, model_code, read_small_json
from ablate.study import Study
from ablate.train.finished import MOMENTS_FILE, is_complete
from ablate.train.job import Kind, Start, TokenSlice, TrainingJob, job_fingerprint
from ablate.train.recipe import (
    Recipe,
    check_tokens,
    replayed_tokens,
    seed_recipe,
    trained_recipe,
    unit_recipe,
)
from ablate.workspace import Workspace, file_digest, fingerprint, slug

if TYPE_CHECKING:
    from ablate.corpus.values import Corpus, PartitionInfo, TokenFile

UNUSED_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
"""Keys of a config that change nothing in a training: weights are always read as float32."""

__all__ = ["TrainedRun", "is_complete", "mixture_job", "seed_job", "unit_jobs", "unit_slices"]


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """One model to train on a mixture, on `tokens` tokens in all.

    Its text is all that its units were cut from (`text_tokens` None), or the first `text_tokens`,
    shared out by the mixture's weights.
    """

    mixture: Mixture
    tokens: int
    text_tokens: int | None
    rng_seed: int

    @property
    def name(self) -> str:
        """Return how its folder is named: the members."""
        return "-".join(self.mixture.partitions)


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
    job = _job(workspace, "seed", "seed", start, slices, recipe)
    return replace(job, save_moments=study.train.carry_moments)


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
    start = _branch_start(study, seed_fingerprint, seed_folder)
    jobs = []
    for name, info in sorted(corpus.partitions.items()):
        for index in range(info.units):
            slices = unit_slices(study, info, index)
            there = sum(piece.tokens for piece in slices)
            recipe = unit_recipe(study, there)
            check_tokens(f"unit {index} of partition '{name}'", there, recipe)
            slices += _replayed(study, corpus, f"{name}/{index}", there)
            job = _job(workspace, "unit", f"unit-{slug(name)}-{index}", start, slices, recipe)
            jobs.append(replace(job, metadata={"partition": name, "unit": index}))
    return jobs


def _replayed(study: Study, corpus: Corpus, unit: str, own: int) -> tuple[TokenSlice, ...]:
    """Return the seed's text that is replayed beside `own` tokens of a unit.

    Where it starts in the seed's text follows from the unit's name, so that units share little of
    it and no unit depends on which others there are.
    """
    tokens = replayed_tokens(study, own)
    if not tokens:
        return ()
    file = corpus.seed
    if file is None:
        raise StudyError(
            "train.replay must have the seed's text, got a corpus without; run `ablate prepare`"
        )
    start = int(fingerprint({"replay": unit}), 16) % file.tokens
    around = (_slice(file, start, file.tokens, None), _slice(file, 0, start, None))
    return tuple(_first([piece for piece in around if piece.tokens], tokens))


def mixture_job(
    study: Study,
    corpus: Corpus,
    workspace: Workspace,
    seed: SeedModel,
    run: TrainedRun,
) -> TrainingJob:
    """Return the job that trains one model on a mixture's own text, from the same seed model.

    The recipe is that of the units over `run.tokens` tokens. Raises StudyError for a partition
    without text in the corpus.
    """
    start = _branch_start(study, seed.fingerprint, workspace.root / seed.folder)
    slices = mixture_slices(study, corpus, run)
    recipe = replace(trained_recipe(study, run.tokens), rng_seed=run.rng_seed)
    check_tokens(f"mixture {run.name}", sum(piece.tokens for piece in slices), recipe)
    job = _job(workspace, "trained", f"trained-{slug(run.name)}", start, slices, recipe)
    how = {"weights": dict(run.mixture.weights), "rng_seed": run.rng_seed}
    return replace(job, metadata=how)


def mixture_slices(study: Study, corpus: Corpus, run: TrainedRun) -> tuple[TokenSlice, ...]:
    """Return the text that a mixture is trained on, by partition.

    A share beyond a partition's units is read again from their start.
    """
    found: list[TokenSlice] = []
    for name, weight in run.mixture.weights:
        info = corpus.partitions.get(name)
        if info is None:
            raise StudyError(
                f"validate must have every partition's training text, got none for '{name}', which "
                "was brought in as a trained unit; give it a source, or exclude it"
            )
        whole = [piece for i in range(info.units) for piece in unit_slices(study, info, i)]
        if run.text_tokens is None:
            found += whole
        else:
            found += _first(whole, round(weight * run.text_tokens))
    return tuple(found)


def _first(slices: Sequence[TokenSlice], tokens: int) -> list[TokenSlice]:
    """Return the first `tokens` tokens of slices that are read over and over."""
    found: list[TokenSlice] = []
    for piece in cycle(slices):
        if tokens <= 0:
            break
        cut = piece.tokens > tokens
        found.append(replace(piece, stop=piece.start + tokens, digest=None) if cut else piece)
        tokens -= piece.tokens
    return found


def unit_slices(study: Study, info: PartitionInfo, index: int) -> tuple[TokenSlice, ...]:
    """Return the token ranges of unit `index`, `[index * unit_tokens, ...)` of the train file.

    With `short_units: repeat` a partition below one unit is read again until the unit is full.
    Raises StudyError when the corpus was cut into other units.
    """
    unit, there = study.corpus.unit_tokens, info.train.tokens
    start = index * unit
    stop = min(start + unit, there)
    if start >= stop:
        raise StudyError(
            f"the corpus must be cut into units of corpus.unit_tokens {unit}, got others for "
            f"partition '{info.name}'; run `ablate prepare`"
        )
    digest = info.unit_digests[index]
    if stop - start == unit or study.corpus.short_units != "repeat":
        return (_slice(info.train, start, stop, digest),)
    whole, rest = divmod(unit, there)
    slices = [_slice(info.train, 0, there, info.train.digest)] * whole
    if rest:
        slices.append(_slice(info.train, 0, rest, None))
    return tuple(slices)


def _branch_start(study: Study, seed_fingerprint: str, seed_folder: Path | str) -> Start:
    """Return what units and trained mixtures start from: the seed, with its moments if asked."""
    moments = None
    if study.train.carry_moments:
        moments = str(Path(seed_folder) / MOMENTS_FILE)
        if not study.seed.sources and not Path(moments).is_file():
            raise StudyError(
                f"train.carry_moments must be false for a seed without {MOMENTS_FILE}, got true "
                f"and {seed_folder}; set it to false, or train the seed in this study"
            )
    return Start(
        mark=seed_fingerprint,
        folder=str(seed_folder),
        trust_remote_code=study.model.trust_remote_code,
        moments=moments,
    )


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
        return checkpoint_start(model.path, trust_remote_code=model.trust_remote_code)
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


def checkpoint_start(path: str, *, trust_remote_code: bool = False) -> Start:
    """Return a start from a checkpoint folder, marked by its files, or from a hub id's commit."""
    folder = Path(path)
    if folder.is_dir():
        mark = _folder_mark(folder, trust_remote_code=trust_remote_code)
        return Start(mark=mark, folder=path, trust_remote_code=trust_remote_code)
    revision = hub_revision(path)
    mark = fingerprint({"hub": path, "revision": revision})
    return Start(mark=mark, folder=path, revision=revision, trust_remote_code=trust_remote_code)


def _folder_mark(folder: Path, *, trust_remote_code: bool) -> str:
    config = read_small_json(folder / "config.json")
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key not in UNUSED_KEYS}
    code = model_code(folder, trust_remote_code=trust_remote_code)
    return fingerprint(
        {
            "weights": checkpoint_digest(folder),
            "config": config,
            "code": {file.name: file_digest(file) for file in code},
        }
    )


def _job(
    workspace: Workspace,
    kind: Kind,
    label: str,
    start: Start,
    slices: tuple[TokenSlice, ...],
    recipe: Recipe,
) -> TrainingJob:
    """Return a job; its folders are named by `label` and the fingerprint of its result."""
    name = f"{label}-{job_fingerprint(kind, start.mark, slices, recipe)}"
    return TrainingJob(
        name=name,
        kind=kind,
        start=start,
        slices=slices,
        recipe=recipe,
        workspace=str(workspace.root),
        folder=str(workspace.models / name),
        resume_folder=str(workspace.resume_folder(name)),
        log_file=str(workspace.logs / f"train-{name}.jsonl"),
        tokenizer_folder=str(workspace.tokenizer),
    )
