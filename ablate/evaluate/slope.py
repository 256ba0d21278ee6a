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

    Holds `at_once` flat vectors of gradients beside it, each as large as the model.
    """

    def __init__(
        self, model: PreTrainedModel, layout: Layout, flat: torch.Tensor, at_once: int
    ) -> None:
        self._model = model
        self.gradients = torch.zeros((at_once, flat.numel()), dtype=flat.dtype, device=flat.device)
        self._views = [flat_views(model, layout, gradient) for gradient in self.gradients]

    def of_loss(self, batches: Sequence[torch.Tensor], place: int) -> None:
        """Write d(summed nats)/d(parameters) over windows [batch, length] into gradient `place`."""
        self.gradients[place].zero_()
        with self._recording(place):
            for tokens in batches:
                logits = self._model(input_ids=tokens, use_cache=False).logits[:, :-1]
                nats = nn.functional.cross_entropy(
                    logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
                )
                nats.backward()

    @contextmanager
    def _recording(self, place: int) -> Iterator[None]:
        """Let the parameters record gradients, straight into a flat vector."""
        with torch.inference_mode(False), torch.enable_grad():
            for parameter, view in self._views[place]:
                parameter.requires_grad_(True)
                parameter.grad = view
            try:
                yield
            finally:
                for parameter, _ in self._views[place]:
                    parameter.requires_grad_(False)
                    parameter.grad = None


def products(
    gradients: torch.Tensor, members: Sequence[torch.Tensor], seed: torch.Tensor
) -> torch.Tensor:
    """Return <gradient, member - seed>, float64 [members, gradients], summed over slices.

    `gradients` are [gradients, numel], the others flat vectors [numel]; each is read once.
    """
    total = torch.zeros((len(members), len(gradients)), dtype=torch.float64)
    for start in range(0, gradients.shape[1], PRODUCT_SLICE):
        piece = slice(start, start + PRODUCT_SLICE)
        here = gradients[:, piece].float()
        origin = seed[piece].to(here.device)
        for place, member in enumerate(members):
            total[place] += (here @ (member[piece].to(here.device) - origin)).double().cpu()
    return total
