"""Presets."""

from __future__ import annotations

import pytest
import torch

from ablate.errors import StudyError
from ablate.imports import check_imports
from ablate.models.build import build_config, build_model, check_preset, padded_vocabulary
from ablate.models.layout import flatten, layout_of
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
