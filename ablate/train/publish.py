"""From a trained engine, at any ZeRO stage, to one plain checkpoint folder."""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ablate.errors import CheckpointError
from ablate.models.checkpoint import TRAINING, save_checkpoint
from ablate.models.layout import Layout
from ablate.models.sources import model_code
from ablate.stores import fetched, kept
from ablate.train import together
from ablate.train.finished import MOMENTS_FILE
from ablate.train.job import Start, TrainingJob
from ablate.train.zero import MOMENTS, ZeroEngine
from ablate.workspace import file_digest

PACKAGES = ("ablate", "torch", "deepspeed", "transformers", "ray")


def publish(engine: ZeroEngine, layout: Layout, job: TrainingJob, training: dict[str, Any]) -> None:
    """Write the job's folder; every worker calls it, worker 0 writes.

    Worker 0 holds one whole flat model in float32 meanwhile (three with moments).
    """
    flat = gather(engine, layout)
    moments = _gather_moments(engine) if job.save_moments else None
    together.all_or_none(lambda: _write(engine, layout, job, training, flat, moments))


def _write(
    engine: ZeroEngine,
    layout: Layout,
    job: TrainingJob,
    training: dict[str, Any],
    flat: Tensor | None,
    moments: dict[str, Tensor] | None,
) -> None:
    if flat is None:
        return
    staged = None
    if moments is not None:
        # Written beside the resume state and moved in at once after the folder is there: a crash
        # between the two leaves a folder that `is_complete` refuses.
        staged = Path(job.resume_folder) / MOMENTS_FILE
        staged.parent.mkdir(parents=True, exist_ok=True)
        save_file(moments, staged, metadata={"step": str(engine.optimizer_step())})
        training = {**training, "optimizer_digest": file_digest(staged)}
    module = engine.engine.module
    save_checkpoint(
        job.path,
        config=module.config,
        layout=layout,
        flat=flat,
        tokenizer_folder=Path(job.tokenizer_folder),
        training=training,
        constants=_constants(module, layout),
        code=_code(job.start),
    )
    if staged is not None:
        staged.replace(job.path / MOMENTS_FILE)
        kept(job.path / MOMENTS_FILE)
        kept(job.path / TRAINING)  # again: on an object store it is younger than what it describes


def _code(start: Start) -> list[Path]:
    if start.folder is None:
        return []
    return model_code(start.folder, trust_remote_code=start.trust_remote_code)


def gather(engine: ZeroEngine, layout: Layout) -> Tensor | None:
    """Return the whole float32 model `[layout.numel]` on worker 0, None elsewhere."""
    first = together.rank() == 0
    flat = torch.zeros(layout.numel, dtype=torch.float32) if first else None
    places = {entry.name: entry for entry in layout.entries}
    buffers = dict(engine.engine.module.named_buffers(remove_duplicate=False))
    values = engine.weights()
    for name, value in values:
        if flat is not None:
            _place(flat, places[layout.aliases.get(name, name)], value)
    for name, buffer in buffers.items():
        if flat is not None and name in places:
            _place(flat, places[name], buffer)
    return flat


def _place(flat: Tensor, entry: Any, value: Tensor) -> None:
    numel = value.numel()
    flat[entry.offset : entry.offset + numel].copy_(value.detach().flatten())


def _constants(module: nn.Module, layout: Layout) -> dict[str, Tensor]:
    buffers = dict(module.named_buffers(remove_duplicate=False))
    return {name: buffers[name].cpu() for name in layout.constants}


def _gather_moments(engine: ZeroEngine) -> dict[str, Tensor] | None:
    first = together.rank() == 0
    held: dict[str, Tensor] = {}
    for name, key, value in engine.moments():
        if first:
            held[f"{name}.{key}"] = value.detach().to("cpu", torch.float32).clone()
    return held if first else None


def read_moments(file: Path, model: nn.Module) -> tuple[dict[tuple[str, str], Tensor], int]:
    """Return `(name, moment) -> float32 tensor` for every parameter of `model`, and their step.

    Raises CheckpointError when the file is missing, cut short or of another architecture.
    """
    values: dict[tuple[str, str], Tensor] = {}
    try:
        with safe_open(str(fetched(file)), framework="pt") as stored:
            step = int((stored.metadata() or {}).get("step", "0"))
            names = set(stored.keys())
            for name, parameter in model.named_parameters():
                for key in MOMENTS:
                    full = f"{name}.{key}"
                    value = stored.get_tensor(full) if full in names else None
                    if value is None or value.shape != parameter.shape:
                        raise CheckpointError(
                            f"Adam moments must fit the model: {file} has no {full} of shape "
                            f"{tuple(parameter.shape)}; set train.carry_moments=false, or train "
                            "the seed again"
                        )
                    values[name, key] = value
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"Adam moments of the seed must be readable with train.carry_moments: {file}: "
            f"{error}; set it to false, or train the seed again"
        ) from error
    return values, step


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of what a trained model depends on."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
