"""What a worker needs to train one model: plain values that cross process borders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ablate.resources import Cluster
from ablate.stores import here
from ablate.train.recipe import Recipe
from ablate.workspace import fingerprint

Kind = Literal["seed", "unit", "trained"]


@dataclass(frozen=True, kw_only=True)
class TokenSlice:
    """Tokens `start` to `stop` of a token file; `digest` is the SHA-256 of them or None."""

    path: str
    start: int
    stop: int
    digest: str | None
    file_tokens: int
    file_digest: str

    @property
    def tokens(self) -> int:
        """Return the number of tokens."""
        return self.stop - self.start

    def identity(self) -> list[Any]:
        """Return what defines the content: where it stands in a file does not."""
        if self.digest is not None:
            return [self.digest, self.tokens]
        return [self.file_digest, self.start, self.stop]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the weights come from: a checkpoint folder, a hub id's `revision`, or a fresh model.

    `mark` is the fingerprint of those weights.
    """

    mark: str
    folder: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    model: Mapping[str, Any] | None = None
    vocab_size: int = 0
    eos_token_id: int = 0
    moments: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One model to train, from a start to a folder.

    `folder` appears when the model is complete; `resume_folder` holds what a killed run goes on
    from; `log_file` gets one JSON line per step. `save_moments` asks for optimizer.safetensors.
    """

    name: str
    kind: Kind
    start: Start
    slices: tuple[TokenSlice, ...]
    recipe: Recipe
    workspace: str
    folder: str
    resume_folder: str
    log_file: str
    tokenizer_folder: str
    save_moments: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the result: it names the same model on any cluster."""
        return job_fingerprint(self.kind, self.start.mark, self.slices, self.recipe)

    @property
    def path(self) -> Path:
        """Return the folder as a path."""
        return Path(self.folder)

    def here(self) -> TrainingJob:
        """Return the job with its paths on this node, where the workspace is on an object store."""
        return replace(
            self,
            workspace=str(here(self.workspace)),
            folder=str(here(self.folder)),
            resume_folder=str(here(self.resume_folder)),
            log_file=str(here(self.log_file)),
            tokenizer_folder=str(here(self.tokenizer_folder)),
        )


def job_fingerprint(
    kind: str, start_mark: str, slices: tuple[TokenSlice, ...], recipe: Recipe
) -> str:
    """Return the fingerprint of a training run from everything that defines its result."""
    return fingerprint(
        {
            "kind": kind,
            "start": start_mark,
            "tokens": [piece.identity() for piece in slices],
            "recipe": recipe.to_json(),
        }
    )


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a worker group runs: from the cluster file, never part of a fingerprint."""

    workers: int
    threads: int
    gpu: bool
    micro_batch_sequences: int | None
    checkpoint_seconds: float
    deepspeed: Mapping[str, Any]

    @classmethod
    def of(cls, cluster: Cluster) -> Placement:
        """Return the placement that a cluster file asks for."""
        train = cluster.train
        return cls(
            workers=train.workers_per_run,
            threads=train.threads_per_worker,
            gpu=train.gpus_per_worker > 0,
            micro_batch_sequences=train.micro_batch_sequences,
            checkpoint_seconds=train.checkpoint_seconds,
            deepspeed=cluster.deepspeed,
        )

    @property
    def zero_stage(self) -> int:
        """Return DeepSpeed's ZeRO stage, 0 to 3."""
        return int(self.deepspeed.get("zero_optimization", {}).get("stage", 0))
