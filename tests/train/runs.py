"""What the training tests share: token files, jobs, reporters. Imported by their subprocesses."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ablate.corpus.token_files import TokenWriter
from ablate.train.job import Placement, Start, TokenSlice, TrainingJob
from ablate.train.recipe import Recipe

VOCABULARY = 256
TOKENS = 5000
MODEL = {
    "preset": "tiny",
    "overrides": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}
RECIPE = Recipe(
    steps=6,
    batch_tokens=256,
    sequence_length=32,
    peak=3e-3,
    schedule="cosine",
    warmup_steps=2,
    decay_steps=0,
    final_share=0.1,
    weight_decay=0.1,
    betas=(0.9, 0.95),
    epsilon=1e-8,
    clip=1.0,
    precision="fp32",
    carry_moments=False,
    rng_seed=0,
)


def text_like(tokens: int, vocabulary: int = VOCABULARY) -> np.ndarray:
    """Return ids of which each depends on the one before, so that there is something to learn."""
    random = np.random.Generator(np.random.PCG64(7))
    noise = random.integers(0, 8, tokens)
    return (np.cumsum(noise) % vocabulary).astype("<u4")


def prepare_folder(root: Path) -> Path:
    """Write the tokens and an empty tokenizer folder below `root`."""
    (root / "tokenizer").mkdir(parents=True)
    write_tokens(root / "train.arrow", text_like(TOKENS))
    return root


def write_tokens(path: Path, tokens: np.ndarray) -> None:
    """Write a token file as a prepared corpus has it."""
    with TokenWriter(path, np.uint16) as writer:
        writer.write(tokens)


def token_slice(start: int = 0, stop: int = TOKENS) -> TokenSlice:
    ids = text_like(TOKENS)
    return TokenSlice(
        path="train.arrow",
        start=start,
        stop=stop,
        digest=hashlib.sha256(ids[start:stop].tobytes()).hexdigest(),
        file_tokens=TOKENS,
        file_digest=hashlib.sha256(ids.tobytes()).hexdigest(),
    )


def job(root: Path, name: str, **changes: Any) -> TrainingJob:
    """Return a job on all tokens; keyword arguments change the job or its recipe."""
    recipe_keys = {key: changes.pop(key) for key in list(changes) if hasattr(RECIPE, key)}
    return replace(
        TrainingJob(
            name=name,
            kind="unit",
            start=Start(mark="random", model=MODEL, vocab_size=VOCABULARY, eos_token_id=0),
            slices=(token_slice(),),
            recipe=replace(RECIPE, **recipe_keys),
            workspace=str(root),
            folder=str(root / "models" / name),
            resume_folder=str(root / "models" / f".resume-{name}"),
            log_file=str(root / "logs" / f"train-{name}.jsonl"),
            tokenizer_folder=str(root / "tokenizer"),
        ),
        **changes,
    )


def placement(stage: int = 0, **changes: Any) -> Placement:
    values: dict[str, Any] = {
        "workers": 1,
        "threads": 1,
        "gpu": False,
        "micro_batch_sequences": 4,
        "checkpoint_seconds": 1e9,
        "deepspeed": {"zero_optimization": {"stage": stage}},
    }
    return Placement(**{**values, **changes})


class Listener:
    """Hears a run; stops it, or kills this process, once `tokens` are trained."""

    def __init__(self, stop_at: float = float("inf"), kill_at: float = float("inf")) -> None:
        self.stop_at, self.kill_at = stop_at, kill_at
        self.notes: list[str] = []
        self.heard: list[int] = []

    def tokens(self, done: int) -> bool:
        self.heard.append(done)
        if done >= self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return done >= self.stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)


def weights(done: TrainingJob) -> dict[str, torch.Tensor]:
    return load_file(done.path / "model.safetensors")


def same(left: TrainingJob, right: TrainingJob) -> bool:
    """Return whether two finished jobs have the same weights, bit for bit."""
    one, other = weights(left), weights(right)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def distance(left: TrainingJob, right: TrainingJob) -> float:
    one, other = weights(left), weights(right)
    return max(float((one[k] - other[k]).abs().max()) for k in one)
