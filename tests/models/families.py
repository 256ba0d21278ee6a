"""Tiny random models of several families, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    OlmoConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from ablate.models.checkpoint import save_checkpoint
from ablate.models.layout import Layout, bind, constants_of, layout_of
from ablate.models.sources import quiet_transformers

VOCABULARY = 320
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True),
    "llama-untied": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "gpt-neox": GPTNeoXConfig(**SHAPE),
    "olmo": OlmoConfig(**SHAPE),
    "olmo2": Olmo2Config(**SHAPE, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=16),
    "cohere": CohereConfig(**SHAPE),
    "granite": GraniteConfig(**SHAPE, logits_scaling=4.0),
}


def small_model(family: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model; weights are spread so that logits are far from flat."""
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[family], dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def saved(folder: Path, family: str = "llama", seed: int = 0) -> Layout:
    """Write a small model to `folder` and return its layout."""
    model = small_model(family, seed)
    layout = layout_of(model)
    tokenizer = folder.parent / "tokenizer"
    tokenizer.mkdir(exist_ok=True, parents=True)
    (tokenizer / "tokenizer.json").write_text("{}")
    save_checkpoint(
        folder,
        config=model.config,
        layout=layout,
        flat=bind(model, layout, torch.float32),
        tokenizer_folder=tokenizer,
        training={"kind": "unit"},
        constants=constants_of(model),
    )
    return layout
