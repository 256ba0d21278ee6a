"""Small real models, their flat vectors and statistics, for tests of merges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from transformers import PreTrainedModel

from ablate.merge.statistics import Grams, fisher_diagonal, gram_matrices
from ablate.models.layout import Layout, flatten, layout_of
from tests.models.families import VOCABULARY, small_model

FAMILIES = ["llama", "llama-untied", "gpt2", "gpt-neox", "olmo"]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A seed and members near it, with what merges may ask of them."""

    layout: Layout
    seed: torch.Tensor
    members: list[torch.Tensor]
    fishers: list[torch.Tensor]
    grams: list[Grams]


def words(seed: int, sequences: int = 6, length: int = 24) -> torch.Tensor:
    """Return random tokens; each seed favours its own part of the vocabulary."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(VOCABULARY)
    ranks = generator.zipf(1.3, size=(sequences, length)) % VOCABULARY
    return torch.from_numpy(order[ranks])


def moved(family: str, by: int, size: float = 0.05) -> PreTrainedModel:
    """Return the family's seed model with random steps of its own, as a unit model would have."""
    model = small_model(family)
    generator = torch.Generator().manual_seed(by)
    for parameter in model.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return model


@cache
def pool(family: str, count: int = 3) -> Pool:
    """Return a pool of `count` members; its tensors must not be written to."""
    seed = small_model(family)
    layout = layout_of(seed)
    models = [moved(family, by) for by in range(1, count + 1)]
    return Pool(
        layout=layout,
        seed=flatten(seed, layout),
        members=[flatten(model, layout) for model in models],
        fishers=[fisher_diagonal(m, layout, words(k)) for k, m in enumerate(models)],
        grams=[gram_matrices(m, layout, words(k), batch=2) for k, m in enumerate(models)],
    )
