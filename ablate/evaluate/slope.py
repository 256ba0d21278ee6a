"""The slope of a loss along every unit's delta, from one backward pass at the merged model.

With theta(w) = theta_0 + sum_k w_k tau_k, the derivative of a domain's loss with respect to w_k is
<grad L(theta(w)), tau_k>: one backward pass and one product per unit give all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from ablate.models.layout import Layout, flat_views

PRODUCT_SLICE = 1 << 22  # elements whose product is summed in float32 before float64 takes over


class Slope:
    """Gradients of a live model whose parameters are views of one flat vector.

    Holds one flat vector of gradients beside it: as much memory as the model.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout, flat: torch.Tensor) -> None:
        self._model = model
        self._gradient = torch.zeros_like(flat)
        self._views = flat_views(model, layout, self._gradient)

    def of_loss(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return d(summed nats)/d(parameters) over windows [batch, length], flat [numel].

        The vector is reused by the next call.
        """
        self._gradient.zero_()
        with self._recording():
            for tokens in batches:
                logits = self._model(input_ids=tokens, use_cache=False).logits[:, :-1]
                nats = nn.functional.cross_entropy(
                    logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
                )
                nats.backward()
        return self._gradient

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Let the parameters record gradients, straight into the flat vector."""
        with torch.inference_mode(False), torch.enable_grad():
            for parameter, view in self._views:
                parameter.requires_grad_(True)
                parameter.grad = view
            try:
                yield
            finally:
                for parameter, _ in self._views:
                    parameter.requires_grad_(False)
                    parameter.grad = None


def product(gradient: torch.Tensor, member: torch.Tensor, seed: torch.Tensor) -> float:
    """Return <gradient, member - seed>, flat vectors [numel], summed in float64 over slices."""
    total = 0.0
    for start in range(0, gradient.numel(), PRODUCT_SLICE):
        piece = slice(start, start + PRODUCT_SLICE)
        here = gradient[piece].float()
        delta = member[piece].to(here.device) - seed[piece].to(here.device)
        total += float(torch.dot(here, delta))
    return total
