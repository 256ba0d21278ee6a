"""The diagonal of a language model's empirical Fisher information, as a flat vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from ablate.models.layout import Layout


def fisher_diagonal(model: PreTrainedModel, layout: Layout, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean over sequences of the squared gradient of a sequence's loss.

    Float32 of shape [layout.numel], zero in padding and for buffers. `tokens` is int64 of shape
    [sequences, length], length >= 2; a sequence's loss is its mean negative log-likelihood per
    token, so the unit is (nats per token)^2 per parameter^2. Squares are taken per sequence (one
    backward pass each) and never of a batch's mean gradient, which vanishes where sequences
    disagree. Labels are the tokens themselves ("empirical" Fisher): no sampling, no random seed.

    The model is left as it was. Memory: the gradients and the activations of one sequence; the sum
    is on the model's device where that leaves half of its memory, else on the CPU.

    Raises ValueError when `tokens` has another shape. Source: Matena and Raffel,
    arXiv 2111.09832, section 2 (per-example squared gradients).
    """
    if tokens.dim() != 2 or tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise ValueError(f"tokens must be [sequences, length >= 2], got {list(tokens.shape)}")
    entries = {entry.name: entry for entry in layout.entries}
    named = [(name, tensor) for name, tensor in model.named_parameters() if name in entries]
    total = torch.zeros(
        layout.numel, dtype=torch.float32, device=_place(named[0][1].device, layout)
    )
    with _differentiable([tensor for _, tensor in named]), torch.enable_grad():
        for sequence in tokens:
            loss = _loss(model, sequence[None].to(named[0][1].device))
            slopes = torch.autograd.grad(loss, [tensor for _, tensor in named], allow_unused=True)
            for (name, _), slope in zip(named, slopes, strict=True):
                if slope is not None:
                    entry = entries[name]
                    part = total[entry.offset : entry.offset + entry.numel]
                    flat = slope.detach().flatten().float().to(total.device)
                    part.addcmul_(flat, flat)
    return total.div_(tokens.shape[0]).cpu()


def _place(device: torch.device, layout: Layout) -> torch.device:
    """Return where the sum is kept: gradients and activations need the device's memory first."""
    if device.type == "cuda" and 8 * layout.numel > torch.cuda.mem_get_info(device)[0] / 2:
        return torch.device("cpu")
    return device


def _loss(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens, use_cache=False).logits
    return cross_entropy(logits[0, :-1].float(), tokens[0, 1:])


@contextmanager
def _differentiable(tensors: list[torch.Tensor]) -> Iterator[None]:
    before = [tensor.requires_grad for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.requires_grad_(True)
        yield
    finally:
        for tensor, flag in zip(tensors, before, strict=True):
            tensor.requires_grad_(flag)
