"""What a finished model folder is, and whether one is there: used to skip what is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import CheckpointError
from ablate.models.checkpoint import checkpoint_digest
from ablate.train.job import TrainingJob
from ablate.workspace import file_digest

TRAINING_FILE = "training.json"
MOMENTS_FILE = "optimizer.safetensors"


def is_complete(folder: Path, job: TrainingJob) -> bool:
    """Return whether `folder` holds the finished result of `job`, unaltered."""
    training = read_training(folder)
    if training is None or training.get("fingerprint") != job.fingerprint:
        return False
    try:
        if checkpoint_digest(folder) != training.get("digest"):
            return False
    except CheckpointError:
        return False
    if job.save_moments:
        file = folder / MOMENTS_FILE
        return file.is_file() and file_digest(file) == training.get("optimizer_digest")
    return True


def read_training(folder: Path) -> Mapping[str, Any] | None:
    """Return `training.json` of a model folder, or None when it is not there or not JSON."""
    try:
        value = json.loads((folder / TRAINING_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
