"""Presets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ablate.errors import CheckpointError, StudyError
from ablate.imports import check_imports
from ablate.models.build import build_config, build_model, check_preset, padded_vocabulary
from ablate.models.layout import flatten, layout_of
from ablate.models.sizes import wrong_size
from ablate.models.sources import CONFIG_ERRORS, read_config
from ablate.study import ModelSettings, Study


def tiny(seed: int = 0, **overrides: object) -> torch.nn.Module:
    settings = ModelSettings(preset="tiny", overrides=overrides)
    return build_model(settings, 4000, 3, seed, 256)


def test_tiny_is_tiny() -> None:
    model = tiny()
    assert 1e6 < model.num_parameters() < 3e6
    assert model.config.vocab_size == padded_vocabulary(4000) == 4032
    assert model.config.eos_token_id == 3
    assert model.config.architectures == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    ("preset", "width", "heads", "layers", "millions"),
    [("130m", 768, 12, 12, (120, 140)), ("1b", 2048, 16, 24, (1100, 1400))],
)
def test_paper_shapes(
    preset: str, width: int, heads: int, layers: int, millions: tuple[int, int]
) -> None:
    settings = ModelSettings(preset=preset)  # type: ignore[arg-type]
    with torch.device("meta"):
        model = build_model(settings, 50_280, 0, 0, 512)
    config = model.config
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (
        width,
        heads,
        layers,
    )
    assert config.max_position_embeddings == 2048
    assert config.tie_word_embeddings
    assert millions[0] < model.num_parameters() / 1e6 < millions[1]


def test_weights_are_a_function_of_the_seed_and_leave_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = tiny(7), tiny(7), tiny(8)
    assert torch.equal(torch.rand(1), expected)
    layout = layout_of(one)
    assert torch.equal(flatten(one, layout), flatten(same, layout))
    assert not torch.equal(flatten(one, layout), flatten(other, layout))


def test_overrides_change_the_shape_and_what_follows_from_it() -> None:
    config = build_config(
        ModelSettings(preset="tiny", overrides={"hidden_size": 256, "num_attention_heads": 8}),
        4000,
        0,
        256,
    )
    assert (config.head_dim, config.num_key_value_heads) == (32, 8)
    assert (
        tiny(hidden_size=256, num_hidden_layers=1)(torch.arange(4)[None]).logits.shape[-1] == 4032
    )


def test_unknown_overrides_are_named() -> None:
    with pytest.raises(StudyError, match="got 'hiden_size'; did you mean 'hidden_size'"):
        tiny(hiden_size=64)
    with pytest.raises(StudyError, match=r"model.overrides must make a"):
        tiny(hidden_size="wide")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"hidden_size": 0}, "overrides must make"),
        ({"num_attention_heads": 3}, "overrides must make"),
        ({"num_hidden_layers": -1}, "must not be negative, got num_hidden_layers = -1"),
        ({"hidden_size": "wide"}, "overrides must make"),
        ({"max_position_embeddings": 64}, "at least the sequence length 128, got 64"),
        ({"num_attention_heads": 0}, "num_attention_heads must be 1 to .*, got 0"),
        ({"num_hidden_layers": 10**8}, "num_hidden_layers must be 1 to 1,000, got 100000000"),
        ({"num_key_value_heads": 0}, "overrides must make"),
        ({"num_key_value_heads": 3}, "overrides must make a model"),
        ({"head_dim": 3}, "overrides must make a model"),
        ({"attention_dropout": 5}, "dropout probability .* got 5"),
        ({"return_dict": False}, "overrides must make a model"),
    ],
)
def test_impossible_presets_are_refused_before_any_work(
    overrides: dict[str, object], expected: str
) -> None:
    with pytest.raises(StudyError, match=expected) as caught:
        check_preset(ModelSettings(preset="tiny", overrides=overrides), 128)
    assert "\n" not in str(caught.value)
    check_preset(ModelSettings(preset="tiny"), 4096)


def test_a_preset_is_checked_with_the_positions_it_is_built_with() -> None:
    def asked(**overrides: int) -> Study:
        return Study.model_validate(
            {
                "name": "x", "workspace": "w",
                "corpus": {"sources": [{"path": "a", "partition": "a"}]},
                "model": {"preset": "tiny", "overrides": overrides},
                "seed": {"sources": [{"path": "a"}]},
                "tokenizer": {"train": {}}, "evaluate": {"sequence_length": 4096},
            }
        )  # fmt: skip

    with pytest.raises(StudyError, match=r"evaluate.sequence_length must be at most the 2048 pos"):
        check_imports(asked())
    check_imports(asked(max_position_embeddings=4096))


@pytest.mark.parametrize("preset", ["tiny", "130m", "1b"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"use_cache": False},
        {"attention_dropout": 0.1},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": False},
        {"output_attentions": True, "num_hidden_layers": 2},
    ],
)
def test_overrides_that_make_a_working_model_are_taken(
    preset: str, overrides: dict[str, object]
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_preset(ModelSettings.model_validate({"preset": preset, "overrides": overrides}), 128)
    assert torch.equal(torch.rand(1), expected)


def test_a_wide_preset_is_tried_without_its_weights() -> None:
    for overrides in ({"num_key_value_heads": 3}, {"attention_dropout": 5}):
        with pytest.raises(StudyError, match="overrides must make a model"):
            check_preset(ModelSettings(preset="1b", overrides=overrides), 128)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_hidden_layers": -1}, "num_hidden_layers must be 1 to 1,000, got -1"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers must be 1 to 1,000, got 10000000"),
        ({"vocab_size": 0}, "vocab_size must be 1 to .*, got 0"),
        ({"hidden_size": 10**12}, "hidden_size must be 1 to .*, got 1000000000000"),
        ({"hidden_size": 10**7, "intermediate_size": 10**7}, "at most .* parameters, got about"),
        ({"num_attention_heads": 0}, "num_attention_heads must be 1 to"),
        ({"model_type": "gpt2", "n_layer": 10**9}, "n_layer must be 1 to 1,000"),
        ({"model_type": "mixtral", "num_local_experts": 10**9}, "num_local_experts must be 0 to"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers must be 1 to 1,000"),
        ({"model_type": "x" * 5000}, "must have a model_type that transformers knows"),
    ],
)
def test_a_checkpoint_of_impossible_sizes_is_refused_before_it_is_built(
    changes: dict[str, object], expected: str, tmp_path: Path
) -> None:
    tiny().config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    read_config(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_the_sizes_of_known_families_are_no_problem() -> None:
    """Names differ from family to family, and some count experts in thousands."""
    for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        try:
            config = CONFIG_MAPPING[kind]()
        except CONFIG_ERRORS:  # it has no defaults, or needs a package
            continue
        assert wrong_size(config.to_dict()) is None, kind
