"""The mean of a model's weights over the last steps of its training (arXiv 1803.05407).

Each worker keeps the mean of the float32 weights that it updates itself, so that nothing is
exchanged for it at any ZeRO stage; it is part of the resume state.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ablate.train import together
from ablate.train.recipe import Recipe
from ablate.train.zero import ZeroEngine


class WeightAverage:
    """The mean weights after each of the recipe's last `average_steps` steps."""

    def __init__(self, engine: ZeroEngine, recipe: Recipe) -> None:
        self._engine = engine
        self._before = recipe.steps - recipe.average_steps
        self._mean = [torch.zeros_like(part) for part in engine.updated()]

    def add(self, step: int) -> None:
        """Take the weights in after step `step`, counted from 0."""
        count = step + 1 - self._before
        if count > 0:
            for mean, part in zip(self._mean, self._engine.updated(), strict=True):
                mean.lerp_(part.detach(), 1 / count)

    def use(self) -> None:
        """Put the mean in the place of the last weights."""
        for mean, part in zip(self._mean, self._engine.updated(), strict=True):
            part.data.copy_(mean)

    def save(self, folder: Path) -> None:
        """Write this worker's part into a resume state."""
        torch.save(self._mean, _file(folder))

    def load(self, folder: Path) -> None:
        """Read this worker's part from a resume state that was checked."""
        stored = torch.load(_file(folder), map_location="cpu", weights_only=True)
        for mean, value in zip(self._mean, stored, strict=True):
            mean.copy_(value)


def _file(folder: Path) -> Path:
    return folder / f"average-{together.rank()}.pt"
