"""Models from presets: a transformers config, random weights from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Olmo2Config,
    PretrainedConfig,
    PreTrainedModel,
)

from ablate.errors import StudyError, did_you_mean
from ablate.models.load import load_model
from ablate.models.sizes import wrong_size
from ablate.models.sources import (
    CONFIG_ERRORS,
    first_line,
    quiet_transformers,
    read_config,
    resolve_folder,
)
from ablate.settings import shortened
from ablate.study import ModelSettings, Study

__all__ = ["PRESETS", "build_config", "build_model", "load_model", "padded_vocabulary"]

VOCABULARY_MULTIPLE = 64
PASS_TOKENS = 4
WEIGHTS_OF_A_TRIAL = 4_000_000
"""Random weights that are made in well under a second."""


def padded_vocabulary(size: int) -> int:
    """Return `size` rounded up to a multiple of 64: matrix kernels run whole tiles.

    The rows beyond the tokenizer's are never asked for; training makes them improbable.
    """
    return -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def _tiny(vocab_size: int, positions: int) -> PretrainedConfig:
    """Llama with 0.8 M parameters beside the embedding, for CPUs."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )


def _paper(hidden: int, heads: int, layers: int) -> Callable[[int, int], PretrainedConfig]:
    def config(vocab_size: int, positions: int) -> PretrainedConfig:
        return Olmo2Config(
            vocab_size=vocab_size,
            hidden_size=hidden,
            # SwiGLU of 8/3 the width, as OLMo has it: 4 widths in two halves of the projection.
            intermediate_size=-(-8 * hidden // 3 // 64) * 64,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=positions,
            tie_word_embeddings=True,
        )

    return config


# Shapes of Na et al. (arXiv 2410.15661): width, heads, layers of their 130M and 1.1B decoders.
PRESETS: dict[str, Callable[[int, int], PretrainedConfig]] = {
    "tiny": _tiny,
    "130m": _paper(768, 12, 12),
    "1b": _paper(2048, 16, 24),
}


def build_config(
    settings: ModelSettings, vocab_size: int, eos_token_id: int, sequence_length: int
) -> PretrainedConfig:
    """Return the config of `settings.preset` with its overrides.

    Raises StudyError for an override that is no key of the config, or that it refuses, and for
    fewer positions than `sequence_length`.
    """
    preset = PRESETS[str(settings.preset)]
    config = preset(padded_vocabulary(vocab_size), max(sequence_length, 2048))
    values = config.to_dict()
    for key in settings.overrides:
        if key not in values or key in ("model_type", "vocab_size", "architectures", "dtype"):
            raise StudyError(
                f"model.overrides must be keys of the preset's config, got {shortened(key)}; "
                f"{did_you_mean(key, values)}"
            )
        value = settings.overrides[key]
        if isinstance(value, int | float) and value < 0:
            raise StudyError(
                f"model.overrides must not be negative, got {key} = {shortened(value)}; correct it"
            )
    values.update(settings.overrides)
    if (problem := wrong_size(settings.overrides) or wrong_size(values)) is not None:
        raise StudyError(f"model.overrides must make a model: {problem}; mend them")
    values.update(bos_token_id=None, eos_token_id=eos_token_id, pad_token_id=None)
    # Derived from the width and the heads unless they are asked for themselves.
    for key, source in (("head_dim", None), ("num_key_value_heads", "num_attention_heads")):
        if key not in settings.overrides and key in values:
            values[key] = values[source] if source else None
    _require_positions(values.get("max_position_embeddings"), sequence_length)
    try:
        return type(config).from_dict(values)  # type: ignore[no-any-return]
    except CONFIG_ERRORS as error:
        raise StudyError(
            f"model.overrides must make a {type(config).__name__}: {first_line(error)}; mend them"
        ) from error


def _require_positions(most: Any, length: int) -> None:
    if isinstance(most, int) and length > most:
        raise StudyError(
            f"model.overrides.max_position_embeddings must be at least the sequence length "
            f"{length}, got {most}; raise it, or lower train.sequence_length"
        )


def build_model(
    settings: ModelSettings,
    vocab_size: int,
    eos_token_id: int,
    rng_seed: int,
    sequence_length: int,
) -> PreTrainedModel:
    """Return the study's model in float32: a preset with random weights, or a checkpoint's.

    Random weights are a function of `rng_seed` alone; the process's own random state is kept.
    """
    if settings.path is not None:
        return load_model(settings.path, trust_remote_code=settings.trust_remote_code)
    config = build_config(settings, vocab_size, eos_token_id, sequence_length)
    with torch.random.fork_rng(devices=[]), quiet_transformers(), _mendable("model.overrides"):
        torch.manual_seed(rng_seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.architectures = [type(model).__name__]
    return model  # type: ignore[no-any-return]


@contextmanager
def _mendable(place: str) -> Iterator[None]:
    """Turn what a config makes transformers raise into one StudyError that names `place`."""
    try:
        yield
    except (*CONFIG_ERRORS, RuntimeError) as error:
        raise StudyError(f"{place} must make a model: {first_line(error)}; mend it") from error


def check_preset(settings: ModelSettings, sequence_length: int) -> PretrainedConfig:
    """Return the config of a preset; no weights of its size are made.

    Raises StudyError when it makes no model with its overrides, or one that scores no text. The
    vocabulary is a stand-in.
    """
    config = build_config(settings, VOCABULARY_MULTIPLE, 0, sequence_length)
    with torch.device("meta"), quiet_transformers(), _mendable("model.overrides"):
        AutoModelForCausalLM.from_config(config)
    if settings.overrides:
        _require_pass(config)
    return config


def _require_pass(config: PretrainedConfig) -> None:
    """Have one layer score a few tokens in training; on the meta device where it is wide.

    Some configs make a model that fails on its first tokens: heads that do not share out, a
    dropout above 1, an output that is no mapping.
    """
    values = config.to_dict()
    values["num_hidden_layers"] = min(1, config.num_hidden_layers)
    if values.get("layer_types"):
        values["layer_types"] = values["layer_types"][:1]
    with quiet_transformers(), _mendable("model.overrides"):
        one = type(config).from_dict(values)
        # Attention spelled out: on the meta device the fused one judges less.
        one._attn_implementation = "eager"
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(one)
        numel = sum(parameter.numel() for parameter in model.parameters())
        place = torch.device("cpu" if numel <= WEIGHTS_OF_A_TRIAL else "meta")
        with torch.random.fork_rng(devices=[]), place, torch.no_grad():
            if place.type == "cpu":
                model = AutoModelForCausalLM.from_config(one, dtype=torch.float32)
            tokens = torch.zeros((2, PASS_TOKENS), dtype=torch.long)
            # Without a cache, masks are looked for in the positions, which the meta device has not.
            found = model.train()(input_ids=tokens, labels=tokens, use_cache=True)
            _require_scores(found, (2, PASS_TOKENS, VOCABULARY_MULTIPLE))


def _require_scores(found: Any, shape: tuple[int, ...]) -> None:
    logits, loss = getattr(found, "logits", None), getattr(found, "loss", None)
    if not isinstance(logits, torch.Tensor) or not isinstance(loss, torch.Tensor):
        raise ValueError("its output has no logits and loss by name")
    if tuple(logits.shape) != shape or loss.ndim:
        raise ValueError(f"its logits are of shape {tuple(logits.shape)}, not {shape}")
    if not loss.is_meta and not (bool(torch.isfinite(loss)) and bool(logits.isfinite().all())):
        raise ValueError("its loss on a few tokens is not finite")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a model's costs follow from. `parameters` counts tied ones once.

    `multiplied` are the parameters that every token is multiplied with: an embedding that the
    output projection does not share is only looked up.
    """

    parameters: int
    multiplied: int
    layers: int
    width: int
    vocabulary: int


def model_shape(study: Study) -> ModelShape:
    """Return the shape of a study's model; no weights are made or read."""
    settings = study.model
    if settings.path is None:
        vocabulary = (
            study.tokenizer.train.vocab_size
            if study.tokenizer.train
            else _tokenizer_size(study.tokenizer.path or "")
        )
        config = build_config(settings, vocabulary, 0, study.train.sequence_length)
    else:
        folder = resolve_folder(settings.path, trust_remote_code=settings.trust_remote_code)
        config = read_config(folder, trust_remote_code=settings.trust_remote_code)
    place = settings.path or "model.overrides"
    with torch.device("meta"), quiet_transformers(), _mendable(place):
        model = AutoModelForCausalLM.from_config(
            config, trust_remote_code=settings.trust_remote_code
        )
    text = config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    shared = head is not None and head.weight is embedding
    return ModelShape(
        parameters=parameters,
        multiplied=parameters if shared else parameters - embedding.numel(),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=embedding.shape[0],
    )


def _tokenizer_size(path: str) -> int:
    from transformers import AutoTokenizer

    try:
        return len(AutoTokenizer.from_pretrained(path, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"tokenizer.path must name a tokenizer folder or hub id, got {shortened(path)}: "
            f"{first_line(error)}"
        ) from error
