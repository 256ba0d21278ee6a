"""The slope along every unit's delta equals what finite differences of the loss say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ablate.evaluate.blocks import Domain
from ablate.evaluate.likelihood import Evaluator
from ablate.evaluate.slope import Slope, products
from ablate.models.layout import bind, flatten, layout_of

LLAMA = LlamaConfig(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)
GPT2 = GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=2, n_positions=64)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_slopes_are_derivatives_and_the_model_is_left_as_it_was(kind: str) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = LlamaForCausalLM(LLAMA) if kind == "llama" else GPT2LMHeadModel(GPT2)
    layout = layout_of(model)
    seed = flatten(model, layout)
    units = [seed + 0.05 * torch.randn_like(seed) * (seed != 0) for _ in range(3)]
    flat = bind(model, layout, torch.float32)
    tokens = np.random.default_rng(0).integers(0, 128, 16 * 40)
    domain = Domain(name="x", tokens=tokens, token_bytes=np.ones(tokens.size, dtype=np.int64))
    other = Domain(name="y", tokens=tokens[:64], token_bytes=domain.token_bytes[:64])
    evaluator = Evaluator(model, [domain, other], length=32, batch_tokens=128)
    weights = np.array([0.5, 0.3, 0.2])

    def loss(shares: np.ndarray) -> float:
        with torch.inference_mode():
            flat.copy_(seed)
            for share, unit in zip(shares, units, strict=True):
                flat.add_(unit - seed, alpha=float(share))
        return evaluator.score(["x"])["x"].loss

    before = loss(weights)
    batches = evaluator.batches("x")
    scored = sum(batch.shape[0] * (batch.shape[1] - 1) for batch in batches)
    slope = Slope(model, layout, flat, at_once=2)
    slope.of_loss(evaluator.batches("y"), 0)
    slope.of_loss(batches, 1)
    along = products(slope.gradients, units, seed)
    slopes = along[:, 1] / scored
    alone = products(slope.gradients[:1], units[1:2], seed)
    assert along[1, 0] == pytest.approx(float(alone[0, 0]), rel=1e-5, abs=1e-7)
    assert evaluator.score(["x"])["x"].loss == before
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    for place in range(3):
        step = np.zeros(3)
        step[place] = 0.02
        expected = (loss(weights + step) - loss(weights - step)) / 0.04
        assert float(slopes[place]) == pytest.approx(expected, rel=0.02, abs=2e-4)
