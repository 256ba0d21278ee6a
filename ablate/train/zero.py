"""A DeepSpeed engine whose weights and Adam moments are read and set the same way at any stage.

DeepSpeed keeps float32 weights and moments in four shapes: whole tensors (stage 0), one flat
partition per parameter group (stages 1 and 2, and bf16 at stage 1), and one flat partition per
parameter (stage 3). This module is the only one that knows them.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from deepspeed.utils.tensor_fragment import (
    safe_get_local_fp32_param,
    safe_get_local_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from ablate.train.recipe import Recipe

MOMENTS = ("exp_avg", "exp_avg_sq")


def prepare_process(threads: int) -> None:
    """Make DeepSpeed silent and free of compilers in this process.

    Its shared-memory operation for CPU is built with a C++ compiler at the first `initialize`
    when it counts as compatible; asking which ones are runs compilers too. None is needed here.
    """
    torch.set_num_threads(threads)
    if gc.get_freeze_count() == 0:
        # DeepSpeed collects garbage often, 0.6 s each with its imports on the heap: set these aside.
        gc.freeze()
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    vars(deepspeed.ops)["__compatible_ops__"] = {}


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101) over `model`; decay acts on tensors of 2 or more axes."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.peak,
        betas=recipe.betas,
        eps=recipe.epsilon,
        fused=True,
    )


class ZeroEngine:
    """A model under DeepSpeed; `forward_backward` for each pass, then `step`."""

    def __init__(self, model: nn.Module, recipe: Recipe, config: Mapping[str, Any]) -> None:
        """Take over a float32 `model` (it is changed) with the JSON of `deepspeed_config`."""
        self.clip = recipe.clip
        self.stage = int(config["zero_optimization"]["stage"])
        self._names = dict(model.named_parameters())
        masters = self._copies(model, recipe)
        self._adamw = adamw(model, recipe)
        self.engine, *_ = deepspeed.initialize(
            model=model, optimizer=self._adamw, config=dict(config)
        )
        self.device: torch.device = self.engine.device
        if torch.distributed.get_world_size() == 1 and self.stage == 0:
            # Alone there is nothing to reduce; DeepSpeed would copy every gradient twice for it.
            self.engine.enable_backward_allreduce = False
        for name, value in masters.items():
            self._set(self._names[name], value.to(self.device), None)

    @staticmethod
    def _copies(model: nn.Module, recipe: Recipe) -> dict[str, Tensor]:
        """Return float32 weights that DeepSpeed would round: its masters start from bf16."""
        if recipe.precision != "bf16":
            return {}
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    @property
    def model(self) -> nn.Module:
        """Return the model, which computes with its current weights."""
        return self.engine  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one pass's mean loss."""
        self.engine.backward(loss)

    def between_passes(self) -> None:
        """Count a pass that is not the last one of its batch."""
        self.engine.step()

    def step(self, learning_rate: float) -> float:
        """Clip, update with `learning_rate`, and return the gradient norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        norm: Any = None
        if self.stage == 0:
            parameters = [p for p in self.engine.module.parameters() if p.grad is not None]
            if self.clip is None:
                norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
            else:
                norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        self.engine.step()
        return float(self.engine.get_global_grad_norm() if norm is None else norm)

    @property
    def learning_rate(self) -> float:
        """Return the rate that stands in the optimizer."""
        return float(self.engine.optimizer.param_groups[0]["lr"])

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every parameter's name and whole float32 value; all workers must iterate."""
        for name, parameter in self._names.items():
            if self.stage == 0 or not parameter.requires_grad:
                yield name, parameter.detach()
            else:
                yield name, safe_get_full_fp32_param(parameter)

    def moments(self) -> Iterator[tuple[str, str, Tensor]]:
        """Yield name, "exp_avg" or "exp_avg_sq", and the whole value; all workers iterate."""
        self._link_moments()
        for name, parameter in self._names.items():
            if not parameter.requires_grad:
                continue
            for key in MOMENTS:
                if self.stage == 0:
                    yield name, key, self._adamw.state[parameter][key]
                else:
                    yield name, key, safe_get_full_optimizer_state(parameter, key)

    def set_moments(self, values: Mapping[tuple[str, str], Tensor], step: int) -> None:
        """Start Adam with moments `(name, key) -> value` that have seen `step` steps."""
        for flat in self.updated():
            state = self._adamw.state[flat]
            state["step"] = torch.tensor(float(step), device=flat.device)
            for key in MOMENTS:
                state[key] = torch.zeros_like(flat)
        self._link_moments()
        for name, parameter in self._names.items():
            if parameter.requires_grad:
                for key in MOMENTS:
                    self._set(parameter, values[name, key].to(self.device), key)

    def _link_moments(self) -> None:
        # Stages 1 and 2 reach moments through slices that DeepSpeed makes once, at the first
        # step, and loses when a checkpoint is loaded.
        if self.stage in (1, 2):
            self.engine.optimizer._hp_optimizer_states_linked = False
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def optimizer_step(self) -> int:
        """Return the updates that Adam's moments have seen."""
        for flat in self.updated():
            if "step" in self._adamw.state[flat]:
                return int(self._adamw.state[flat]["step"])
        return 0

    def updated(self) -> list[Tensor]:
        """Return the float32 tensors that AdamW updates on this worker: weights, or its share."""
        if self.stage == 3:
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [p for group in self._adamw.param_groups for p in group["params"]]

    def _set(self, parameter: Tensor, value: Tensor, key: str | None) -> None:
        """Set a parameter's float32 weight (`key` None) or one of its moments."""
        with torch.no_grad():
            if self.stage == 0:
                target = parameter if key is None else self._adamw.state[parameter][key]
                target.copy_(value)
            elif self.stage == 3:
                self._set_partition(parameter, value, key)
            elif key is None:
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, key)

    def _set_partition(self, parameter: Tensor, value: Tensor, key: str | None) -> None:
        # Partitions have equal sizes: the last one is padded where workers do not divide numel.
        if key is None:
            numel = safe_get_local_fp32_param(parameter).numel()
        else:
            numel = safe_get_local_optimizer_state(parameter, key).numel()
        workers = torch.distributed.get_world_size()
        rank = torch.distributed.get_rank()
        padded = value.new_zeros(numel * workers)
        padded[: value.numel()] = value.flatten()
        part = padded[numel * rank : numel * (rank + 1)]
        if key is None:
            safe_set_local_fp32_param(parameter, part)
        else:
            safe_set_local_optimizer_state(parameter, part, key)

    def close(self) -> None:
        """Free DeepSpeed's hooks and buffers, so that the process can train the next model."""
        self.engine.destroy()
