"""What a finished model folder is, and whether one is there: used to skip what is done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import CheckpointError
from ablate.models.checkpoint import (
    TRAINING,
    WEIGHTS,
    altered_file,
    checkpoint_digest,
    read_training,
)
from ablate.stores import fetched, is_vouched
from ablate.train.job import TrainingJob
from ablate.workspace import file_digest

MOMENTS_FILE = "optimizer.safetensors"

__all__ = ["MOMENTS_FILE", "is_complete", "read_training", "what_is_wrong"]


def is_complete(folder: Path, job: TrainingJob) -> bool:
    """Return whether `folder` holds the finished result of `job`, unaltered."""
    return what_is_wrong(folder, job) is None


def what_is_wrong(folder: Path, job: TrainingJob) -> str | None:
    """Return why `folder` is not the finished result of `job`, or None when it is."""
    training = read_training(folder)
    if training is None:
        return f"{TRAINING} is missing or altered"
    if training.get("fingerprint") != job.fingerprint:
        return f"{TRAINING} is that of another model"
    if _is_vouched(folder, training, job):
        return None
    folder = fetched(folder)
    try:
        if checkpoint_digest(folder) != training.get("digest"):
            return f"{WEIGHTS} does not match its digest"
    except CheckpointError:
        return f"{WEIGHTS} is missing"
    file = folder / MOMENTS_FILE
    if job.save_moments and not (
        file.is_file() and file_digest(file) == training.get("optimizer_digest")
    ):
        return f"{MOMENTS_FILE} is missing or does not match its digest"
    name = altered_file(folder)
    return None if name is None else f"{name} is missing or does not match its digest"


def _is_vouched(folder: Path, training: Mapping[str, Any], job: TrainingJob) -> bool:
    """Return whether an object store holds all files of a model, unaltered since they were written.

    What their digests are is compared by who uses them.
    """
    names = [WEIGHTS, *training.get("files", ()), *([MOMENTS_FILE] if job.save_moments else [])]
    return all(is_vouched(folder / name, folder / TRAINING) for name in names)
