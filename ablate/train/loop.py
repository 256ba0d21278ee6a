"""Train one model: the loop over a DeepSpeed engine, the same on one worker and on many."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ablate.corpus.token_files import token_parts
from ablate.corpus.values import TokenFile
from ablate.errors import CorpusError, StudyError
from ablate.models.build import build_model, load_model
from ablate.models.layout import layout_of
from ablate.stores import fetched, kept
from ablate.study import ModelSettings
from ablate.train import resume, together
from ablate.train.average import WeightAverage
from ablate.train.batches import Tokens, Windows
from ablate.train.deepspeed_config import deepspeed_config
from ablate.train.finished import is_complete
from ablate.train.job import Placement, TokenSlice, TrainingJob
from ablate.train.publish import publish, read_moments, versions
from ablate.train.recipe import Batch, Recipe, share_batch
from ablate.train.resume import ResumePoint
from ablate.train.steplog import StepLog
from ablate.train.zero import ZeroEngine, prepare_process

GO_ON, SAVE, STOP = 0, 1, 2
IGNORED = -100


class Reporter(Protocol):
    """Where a run tells how far it is."""

    def tokens(self, done: int) -> bool:
        """Hear the tokens trained so far; return whether the run should stop."""

    def note(self, text: str) -> None:
        """Hear a line for the user."""


def train_one(job: TrainingJob, placement: Placement, report: Reporter) -> bool:
    """Train `job` from its start, or from its resume state, to its published folder.

    Every worker of the run calls it inside an initialized torch.distributed group. `report`
    is called on worker 0 after each step; when it says so the state is saved and training stops.
    Returns whether the folder was published. Raises an AblateError, on all workers alike, when the
    job itself cannot be done.
    """
    prepare_process(placement.threads)
    job = job.here()
    with _quiet_output():
        if together.tell(together.all_or_none(lambda: _is_done(job))):
            return True
        run = together.all_or_none(lambda: _Run(job, placement))
        try:
            return run.train(report)
        finally:
            run.close()


def _is_done(job: TrainingJob) -> bool:
    return together.rank() == 0 and is_complete(fetched(job.path), job)


class _Run:
    """One model in training on this worker."""

    def __init__(self, job: TrainingJob, placement: Placement) -> None:
        self.job, self.placement = job, placement
        self.recipe: Recipe = job.recipe
        self.batch: Batch = share_batch(
            job.recipe, placement.workers, placement.micro_batch_sequences
        )
        self.windows = read_windows(job)
        self.model = start_model(job)
        check_vocabulary(self.windows, self.model, job.name)
        self.layout = layout_of(self.model)
        self.moments = None
        if self.recipe.carry_moments and job.start.moments is not None:
            self.moments = read_moments(Path(job.start.moments), self.model)
        self.engine: ZeroEngine | None = None
        self.average: WeightAverage | None = None
        self.log: StepLog | None = None
        self._saved = 0.0

    def train(self, report: Reporter) -> bool:
        engine, point = self._begin(report)
        self._saved = time.monotonic()
        started = self._saved - point.seconds
        self.log = together.all_or_none(lambda: self._open_log(point.step))
        asked = False
        for step in range(point.step, self.recipe.steps):
            began = time.monotonic()
            loss, norm, signal = self._step(engine, step, self._wish(asked))
            now = time.monotonic()
            values = {
                "loss": loss,
                "learning_rate": engine.learning_rate,
                "grad_norm": norm,
                "tokens_per_second": round(self.recipe.batch_tokens / max(now - began, 1e-9), 1),
            }
            if self.average is not None:
                self.average.add(step)
            asked = self._record(report, step, values)
            if signal != GO_ON and step + 1 < self.recipe.steps:
                point = ResumePoint(step=step + 1, seconds=now - started)
                self._keep_log()
                folder = Path(self.job.resume_folder)
                resume.save(engine, self.average, folder, point, self._identity())
                self._saved = time.monotonic()
                if signal == STOP:
                    return False
        self._keep_log()
        if self.average is not None:
            self.average.use()
        publish(engine, self.layout, self.job, self._training(time.monotonic() - started))
        resume.remove(Path(self.job.resume_folder))
        return True

    def _begin(self, report: Reporter) -> tuple[ZeroEngine, ResumePoint]:
        config = deepspeed_config(self.recipe, self.batch, self.placement)
        engine = self.engine = ZeroEngine(self.model, self.recipe, config)
        if self.recipe.average_steps:
            self.average = WeightAverage(engine, self.recipe)
        folder = Path(self.job.resume_folder)
        point = resume.load(engine, self.average, folder, self._identity(), report.note)
        if point is None and self.moments is not None:
            engine.set_moments(*self.moments)
        self.moments = None
        engine.model.train()
        return engine, point or ResumePoint(step=0, seconds=0.0)

    def _wish(self, asked: bool) -> int:
        """Return what worker 0 wants done after the coming step."""
        if asked:
            return STOP
        late = time.monotonic() - self._saved >= self.placement.checkpoint_seconds
        return SAVE if late else GO_ON

    def _step(self, engine: ZeroEngine, step: int, signal: int) -> tuple[float, float, int]:
        # Dropout draws from (random seed, step, worker): a resumed run repeats the same draws.
        torch.manual_seed(draw_seed(self.recipe.rng_seed, step, together.rank()))
        rows = self.batch.passes * self.batch.sequences
        first = together.rank() * rows
        ids = self.windows.batch(step, self.recipe.batch_sequences, first, first + rows)
        total = torch.zeros((), dtype=torch.float32, device=engine.device)
        for number, part in enumerate(torch.from_numpy(ids).split(self.batch.sequences)):
            if number:
                engine.between_passes()
            loss = mean_loss(engine.model, part.to(engine.device))
            engine.backward(loss)
            total += loss.detach() / self.batch.passes
        loss_now, signal = together.mean_and_signal(float(total), signal, engine.device)
        self._check_finite(loss_now, step, "loss")
        norm = engine.step(self.recipe.learning_rate(step))
        self._check_finite(norm, step, "gradient norm")
        return loss_now, norm, signal

    def _check_finite(self, value: float, step: int, what: str) -> None:
        if not math.isfinite(value) or value < 0:
            raise StudyError(
                f"the training {what} must stay finite, got {value} at step {step + 1} of "
                f"{self.job.name} with learning rate {self.recipe.learning_rate(step):.3g}; lower "
                "the learning rate, or raise the warm-up"
            )

    def _record(self, report: Reporter, step: int, values: dict[str, float]) -> bool:
        """Log a step on worker 0; return whether the run was asked to stop."""
        if self.log is None:
            return False
        tokens = (step + 1) * self.recipe.batch_tokens
        self.log.write({"step": step + 1, "tokens": tokens, **values})
        return report.tokens(tokens)

    def _open_log(self, step: int) -> StepLog | None:
        return StepLog(fetched(self.job.log_file), step) if together.rank() == 0 else None

    def _keep_log(self) -> None:
        together.all_or_none(lambda: kept(Path(self.job.log_file)) if self.log else None)

    def _identity(self) -> dict[str, Any]:
        config = self.placement
        return {
            "job": self.job.fingerprint,
            "workers": config.workers,
            "zero_stage": config.zero_stage,
            "versions": {name: versions()[name] for name in ("torch", "deepspeed")},
        }

    def _training(self, seconds: float) -> dict[str, Any]:
        job, windows = self.job, self.windows
        return {
            **job.metadata,
            "name": job.name,
            "kind": job.kind,
            "fingerprint": job.fingerprint,
            "start": job.start.mark,
            "recipe": self.recipe.to_json(),
            "steps": self.recipe.steps,
            "tokens": self.recipe.tokens,
            "unit_tokens": windows.tokens,
            "unused_tokens": windows.dropped_tokens,
            "passes": self.recipe.steps * self.recipe.batch_sequences / windows.count,
            **(self.log.summary() if self.log else {}),
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self.recipe.tokens / max(seconds, 1e-9), 1),
            "workers": self.placement.workers,
            "zero_stage": self.placement.zero_stage,
            "versions": versions(),
        }

    def close(self) -> None:
        """Free what this model holds, so that the process can train the next one."""
        if self.log is not None:
            self.log.close()
        if self.engine is not None:
            self.engine.close()
            self.engine = None


def mean_loss(model: nn.Module, windows: Tensor) -> Tensor:
    """Return the mean next-token loss (nats, float32) of `windows [sequences, length]`.

    The first token of a window is context only, as with Hugging Face's `labels=input_ids`.
    """
    logits = model(input_ids=windows, use_cache=False).logits
    labels = F.pad(windows[:, 1:], (0, 1), value=IGNORED)
    return F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="mean"
    )


def draw_seed(rng_seed: int, step: int, rank: int) -> int:
    """Return the seed of torch's generators at a step on a worker."""
    text = f"{rng_seed}:{step}:{rank}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little")


def start_model(job: TrainingJob) -> PreTrainedModel:
    """Return the model that training starts from, in float32."""
    start = job.start
    if start.folder is not None:
        model = load_model(
            start.folder,
            trust_remote_code=start.trust_remote_code,
            revision=start.revision,  # workers of one run read one commit, that of its mark
        )
    else:
        model = build_model(
            ModelSettings(**dict(start.model or {})),
            start.vocab_size,
            start.eos_token_id,
            job.recipe.rng_seed,
            job.recipe.sequence_length,
        )
    return model.requires_grad_(True)


def read_windows(job: TrainingJob) -> Windows:
    """Return the training windows of a job; raises CorpusError when tokens were altered."""
    pieces = [tokens for piece in job.slices for tokens in _read_slice(Path(job.workspace), piece)]
    return Windows(pieces, job.recipe.sequence_length, job.recipe.rng_seed, job.name)


def _read_slice(workspace: Path, piece: TokenSlice) -> list[Tokens]:
    """Return a slice in parts: mapped, not copied."""
    file = TokenFile(path=piece.path, tokens=piece.file_tokens, digest=piece.file_digest)
    fetched(workspace / piece.path)
    parts = token_parts(workspace, file, piece.start, piece.stop)
    if piece.digest is not None:
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part, dtype="<u4").tobytes())
        if digest.hexdigest() != piece.digest:
            raise CorpusError(
                f"tokens must be as they were prepared: {piece.start} to {piece.stop} of "
                f"{piece.path} were altered; delete that file and run `ablate prepare` again"
            )
    return parts


def check_vocabulary(windows: Windows, model: PreTrainedModel, name: str) -> None:
    """Raise CorpusError when a token id is outside the model's vocabulary."""
    size = int(model.get_input_embeddings().num_embeddings)
    highest = windows.highest()
    if highest >= size:
        raise CorpusError(
            f"token ids must be below the model's vocabulary of {size}, got {highest} in {name}; "
            "use the tokenizer that belongs to the model"
        )


@contextlib.contextmanager
def _quiet_output() -> Iterator[None]:
    """Keep DeepSpeed's prints off standard output, which belongs to results."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        # DeepSpeed calls collectives by names that torch renamed, thousands of times.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
        yield
