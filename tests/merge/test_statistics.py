"""Fisher diagonals and Gram matrices of small real models, and their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from ablate.errors import WorkspaceError
from ablate.merge.statistics import (
    Grams,
    fisher_diagonal,
    gram_matrices,
    read_statistics,
    write_statistics,
)
from ablate.models.layout import bind, layout_of
from tests.merge.models import FAMILIES, pool, words
from tests.models.families import small_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fisher_diagonal_is_the_mean_squared_gradient(family: str) -> None:
    model = small_model(family)
    layout = layout_of(model)
    tokens = words(3, sequences=3)
    got = fisher_diagonal(model, layout, tokens)
    exact = torch.zeros(layout.numel, dtype=torch.float64)
    plain = small_model(family).double()
    named = dict(plain.named_parameters())
    for row in tokens:
        plain.zero_grad()
        picked = log_softmax(plain(row[None]).logits[0, :-1], -1).gather(1, row[1:, None])
        (-picked.mean()).backward()
        for entry in layout.entries:
            if entry.name in named:
                place = slice(entry.offset, entry.offset + entry.numel)
                exact[place] += named[entry.name].grad.flatten() ** 2 / len(tokens)
    assert float(exact.max()) > 0
    assert torch.allclose(got.double(), exact, rtol=1e-3, atol=float(exact.max()) * 1e-7)


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_gathers_what_the_cpu_does(family: str) -> None:
    found: list[tuple[torch.Tensor, Grams]] = []
    for device in ("cpu", "cuda"):
        model = small_model(family)
        layout = layout_of(model)
        bind(model, layout, torch.float32, device)
        tokens = words(3, sequences=3)
        fisher, grams = fisher_diagonal(model, layout, tokens), gram_matrices(model, layout, tokens)
        assert fisher.device.type == "cpu"
        found.append((fisher, grams))
    (fisher, grams), (on_device, device_grams) = found
    assert torch.allclose(fisher, on_device, rtol=1e-3, atol=float(fisher.max()) * 1e-5)
    for name, matrix in grams.matrices.items():
        assert torch.allclose(matrix, device_grams.matrices[name], rtol=1e-3, atol=1e-5)


def test_a_model_is_left_as_it_was() -> None:
    model = small_model("llama")
    layout = layout_of(model)
    bind(model, layout, torch.float32)  # as the scorer holds it: no gradients wanted
    before = {name: p.clone() for name, p in model.named_parameters()}
    fisher_diagonal(model, layout, words(0))
    gram_matrices(model, layout, words(0))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad and parameter.grad is None
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_gram_matrices_are_those_of_the_layers_inputs(family: str) -> None:
    model = small_model(family)
    layout = layout_of(model)
    tokens = words(1)
    inputs: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(
            lambda _m, args, key=name: (
                inputs.__setitem__(f"{key}.weight", args[0])
                if args and isinstance(args[0], torch.Tensor)
                else None
            )
        )
    with torch.no_grad():
        model(tokens)
    grams = gram_matrices(model, layout, tokens, batch=tokens.shape[0])
    assert grams.matrices
    for name, gram in grams.matrices.items():
        x = inputs[name].reshape(-1, gram.shape[0]).double()
        exact = x.T @ x / x.shape[0]
        assert torch.allclose(gram.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_gram_matrices_do_not_depend_on_the_batch(family: str) -> None:
    model = small_model(family)
    layout = layout_of(model)
    whole = gram_matrices(model, layout, words(1), batch=6)
    for batch in (1, 4):
        cut = gram_matrices(model, layout, words(1), batch=batch)
        assert cut.matrices.keys() == whole.matrices.keys()
        for name, gram in whole.matrices.items():
            size = float(gram.abs().max())
            assert torch.allclose(cut.matrices[name], gram, rtol=0, atol=1e-5 * size)


def test_every_linear_weight_that_is_not_tied_has_one() -> None:
    for family, tied in (("llama", True), ("llama-untied", False)):
        model = small_model(family)
        layout = layout_of(model)
        grams = gram_matrices(model, layout, words(0))
        linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        assert set(grams.matrices) == linear - ({"lm_head.weight"} if tied else set())
        assert not grams.input_first


def test_layers_fed_by_one_tensor_share_a_matrix() -> None:
    grams = pool("llama").grams[0].matrices
    layer = "model.layers.0"
    query = grams[f"{layer}.self_attn.q_proj.weight"]
    assert grams[f"{layer}.self_attn.k_proj.weight"] is query
    assert grams[f"{layer}.self_attn.v_proj.weight"] is query
    assert grams[f"{layer}.mlp.gate_proj.weight"] is grams[f"{layer}.mlp.up_proj.weight"]
    assert grams[f"{layer}.mlp.gate_proj.weight"] is not query
    assert grams[f"{layer}.self_attn.o_proj.weight"] is not query
    assert grams["model.layers.1.self_attn.q_proj.weight"] is not query


def test_conv1d_weights_are_known_as_input_first() -> None:
    grams = pool("gpt2").grams[0]
    assert grams.input_first == set(grams.matrices)
    assert len(grams.matrices["transformer.h.0.mlp.c_proj.weight"]) == 256


META = {"model": "0123", "tokens": "4567"}


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    models = pool("llama")
    write_statistics(tmp_path / "f.safetensors", "fisher", models.fishers[0], META)
    write_statistics(tmp_path / "g.safetensors", "regmean", models.grams[0], META)
    found = read_statistics(tmp_path / "f.safetensors", "fisher", META)
    assert found is not None and found[1] == META
    assert torch.equal(found[0], models.fishers[0])
    found = read_statistics(tmp_path / "g.safetensors", "regmean", META)
    assert found is not None and isinstance(found[0], Grams)
    matrices = found[0].matrices
    assert all(torch.equal(matrices[n], g) for n, g in models.grams[0].matrices.items())
    assert len({id(g) for g in matrices.values()}) < len(matrices)  # still shared
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["f.safetensors", "g.safetensors"]


def test_orientation_survives_a_file(tmp_path: Path) -> None:
    grams = pool("gpt2").grams[0]
    write_statistics(tmp_path / "g.safetensors", "regmean", grams, {})
    found = read_statistics(tmp_path / "g.safetensors", "regmean", {})
    assert found is not None and isinstance(found[0], Grams)
    assert found[0].input_first == grams.input_first


def test_no_file_is_none(tmp_path: Path) -> None:
    assert read_statistics(tmp_path / "none.safetensors", "fisher", {}) is None


def test_files_of_other_things_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    write_statistics(path, "fisher", torch.ones(64), META)
    with pytest.raises(WorkspaceError, match=r"must have model = '9'.*has '0123'"):
        read_statistics(path, "fisher", {"model": "9"})
    with pytest.raises(WorkspaceError, match="must have kind = 'regmean'"):
        read_statistics(path, "regmean", META)


def test_altered_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    write_statistics(path, "fisher", torch.arange(64, dtype=torch.float32), META)
    whole = path.read_bytes()
    altered = {
        "its contents do not fit": whole[:-1] + bytes([whole[-1] ^ 1]),
        "cut short": whole[:-4],
        "claims a header": b"\xff" * 8 + whole[8:],
        "its contents do not": whole.replace(b"0123", b"0124"),
        "schema": whole.replace(b"schema_version", b"schema_versiom"),
        "NaN": whole[:-4] + b"\x00\x00\xc0\x7f",
    }
    for reason, data in altered.items():
        path.write_bytes(data)
        with pytest.raises(WorkspaceError, match=reason):
            read_statistics(path, "fisher", META)


def test_foreign_safetensors_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    header = json.dumps({"fisher": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x00\x00\x80\x3f")
    with pytest.raises(WorkspaceError, match="header is not JSON"):
        read_statistics(path, "fisher", {})


def test_tokens_must_be_sequences() -> None:
    model = small_model("llama")
    layout = layout_of(model)
    for tokens in (torch.zeros(8, dtype=torch.int64), torch.zeros((0, 8), dtype=torch.int64)):
        with pytest.raises(ValueError, match="tokens must be"):
            fisher_diagonal(model, layout, tokens)
        with pytest.raises(ValueError, match="tokens must be"):
            gram_matrices(model, layout, tokens)
