"""The flat vector is the model, and nothing else is."""

from __future__ import annotations

import json

import pytest
import torch
from families import CONFIGS, VOCABULARY, small_model

from ablate.errors import CheckpointError
from ablate.models.layout import ALIGNMENT, Layout, bind, constants_of, flatten, layout_of

TOKENS = torch.arange(24).view(2, 12) % VOCABULARY


@pytest.mark.parametrize("family", CONFIGS)
def test_binding_keeps_the_function_and_makes_the_vector_live(family: str) -> None:
    model, other = small_model(family), small_model(family, seed=1)
    layout = layout_of(model)
    with torch.inference_mode():
        before, wanted = model(TOKENS).logits, other(TOKENS).logits
        flat = bind(model, layout, torch.float32)
        assert torch.equal(model(TOKENS).logits, before)
        flat.copy_(flatten(other, layout))
        assert torch.equal(model(TOKENS).logits, wanted)
        assert torch.equal(flatten(model, layout), flat)


@pytest.mark.parametrize("family", CONFIGS)
def test_entries_are_aligned_sorted_and_cover_every_parameter_once(family: str) -> None:
    model = small_model(family)
    layout = layout_of(model)
    assert [e.name for e in layout.entries] == sorted(e.name for e in layout.entries)
    assert all(e.offset % ALIGNMENT == 0 for e in layout.entries)
    assert layout.parameters == sum(p.numel() for p in model.parameters())
    covered = torch.zeros(layout.numel, dtype=torch.bool)
    for entry in layout.entries:
        covered[entry.offset : entry.offset + entry.numel] = True
    assert not flatten(model, layout)[~covered].any()


def test_tied_tensors_appear_once_under_the_name_that_loading_wants() -> None:
    assert layout_of(small_model("llama")).aliases == {
        "lm_head.weight": "model.embed_tokens.weight"
    }
    assert layout_of(small_model("gpt2")).aliases == {"lm_head.weight": "transformer.wte.weight"}
    assert layout_of(small_model("llama-untied")).aliases == {}


def test_tied_weights_stay_tied_when_bound() -> None:
    model = small_model("gpt2")
    bind(model, layout_of(model), torch.bfloat16)
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_buffers_are_entries_when_float_and_constants_when_integer() -> None:
    model = small_model("llama")
    model.model.register_buffer("shift", torch.full((3,), 2.0))
    model.model.register_buffer("table", torch.arange(5))
    model.model.register_buffer("scratch", torch.ones(2), persistent=False)
    layout = layout_of(model)
    names = {entry.name for entry in layout.entries}
    assert "model.shift" in names
    assert not any("inv_freq" in name or "scratch" in name for name in names)
    assert set(layout.constants) == set(constants_of(model)) == {"model.table"}
    flat = bind(model, layout, torch.float32)
    flat.mul_(2)
    assert model.model.shift.tolist() == [4.0, 4.0, 4.0]
    model.model.table[0] = 7
    assert layout_of(model).fingerprint != layout.fingerprint


def test_a_layout_survives_json() -> None:
    layout = layout_of(small_model("gpt-neox"))
    back = Layout.from_json(json.loads(json.dumps(layout.to_json())))
    assert back == layout
    assert back.fingerprint == layout.fingerprint


def test_fingerprints_tell_architectures_apart_and_not_weights() -> None:
    marks = {layout_of(small_model(family)).fingerprint for family in CONFIGS}
    assert len(marks) == len(CONFIGS)
    assert layout_of(small_model("llama", 1)).fingerprint in marks


def test_a_layout_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match="must have shape"):
        bind(small_model("gpt2"), layout_of(small_model("llama")), torch.float32)


def test_quantized_parameters_are_refused() -> None:
    model = small_model("llama")
    model.model.norm.weight = torch.nn.Parameter(
        torch.ones(64, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(CheckpointError, match="must be float tensors"):
        layout_of(model)
