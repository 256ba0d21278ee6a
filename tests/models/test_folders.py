"""Checkpoints: what is written loads anywhere, what is broken is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import CONFIGS, VOCABULARY, saved, small_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ablate.errors import CheckpointError
from ablate.models.checkpoint import checkpoint_digest, load_flat, save_checkpoint
from ablate.models.layout import flatten, layout_of
from ablate.models.load import load_model
from ablate.models.sources import quiet_transformers
from ablate.workspace import file_digest

TOKENS = torch.arange(24).view(2, 12) % VOCABULARY


@pytest.mark.parametrize("family", CONFIGS)
def test_a_written_folder_is_the_model(tmp_path: Path, family: str) -> None:
    layout = saved(tmp_path / "unit", family)
    model = small_model(family)
    with quiet_transformers():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "unit")
    assert loaded.dtype == torch.float32
    with torch.inference_mode():
        assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
        assert torch.equal(load_model(tmp_path / "unit")(TOKENS).logits, model(TOKENS).logits)
    assert np.array_equal(load_flat(tmp_path / "unit", layout), flatten(model, layout).numpy())


def test_the_folder_holds_tokenizer_training_and_digest(tmp_path: Path) -> None:
    layout = saved(tmp_path / "unit")
    training = json.loads((tmp_path / "unit/training.json").read_text())
    assert training["kind"] == "unit"
    assert training["digest"] == file_digest(tmp_path / "unit/model.safetensors")
    assert training["digest"] == checkpoint_digest(tmp_path / "unit")
    assert (tmp_path / "unit/tokenizer.json").is_file()
    tensors = load_file(tmp_path / "unit/model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert sorted(tensors) == [entry.name for entry in layout.entries]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer", "unit"]


def test_equal_weights_make_equal_files_and_replace_old_ones(tmp_path: Path) -> None:
    saved(tmp_path / "unit", seed=1)
    first = checkpoint_digest(tmp_path / "unit")
    saved(tmp_path / "unit", seed=2)
    assert checkpoint_digest(tmp_path / "unit") != first
    saved(tmp_path / "unit", seed=1)
    assert checkpoint_digest(tmp_path / "unit") == first


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    model = small_model("llama")
    layout = layout_of(model)
    flat = flatten(model, layout)
    flat[layout.entries[3].offset] = torch.nan
    with pytest.raises(CheckpointError, match=f"'{layout.entries[3].name}'.* is not"):
        save_checkpoint(
            tmp_path / "unit",
            config=model.config,
            layout=layout,
            flat=flat,
            tokenizer_folder=tmp_path,
            training={},
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    layout = saved(tmp_path / "unit")
    path = tmp_path / "unit/model.safetensors"
    halves = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})
    flat = load_flat(tmp_path / "unit", layout)
    for entry in layout.entries:
        part = flat[entry.offset : entry.offset + entry.numel].reshape(entry.shape)
        assert np.array_equal(part, halves[entry.name].float().numpy())


def test_bfloat16_checkpoints_are_written_as_asked(tmp_path: Path) -> None:
    model = small_model("llama")
    layout = layout_of(model)
    save_checkpoint(
        tmp_path / "unit",
        config=model.config,
        layout=layout,
        flat=flatten(model, layout).bfloat16(),
        tokenizer_folder=tmp_path,
        training={},
    )
    with quiet_transformers():
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "unit").dtype == torch.bfloat16


def test_a_tied_tensor_may_be_stored_twice_when_equal(tmp_path: Path) -> None:
    layout = saved(tmp_path / "unit")
    path = tmp_path / "unit/model.safetensors"
    expected = load_flat(tmp_path / "unit", layout)
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    assert np.array_equal(load_flat(tmp_path / "unit", layout), expected)
    tensors["lm_head.weight"] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="tied tensors must be equal"):
        load_flat(tmp_path / "unit", layout)
    del tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] -= 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert load_flat(tmp_path / "unit", layout).shape == expected.shape


def test_a_given_buffer_is_filled_and_its_padding_cleared(tmp_path: Path) -> None:
    layout = saved(tmp_path / "unit", "gpt2")
    expected = load_flat(tmp_path / "unit", layout)
    out = np.full(layout.numel, np.nan, dtype=np.float32)
    assert load_flat(tmp_path / "unit", layout, out=out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("family", CONFIGS)
def test_outputs_are_by_name_whatever_the_config_asks(tmp_path: Path, family: str) -> None:
    saved(tmp_path / "unit", family)
    configured(tmp_path / "unit", return_dict=False)
    with torch.inference_mode():
        found = load_model(tmp_path / "unit")(TOKENS).logits
        assert torch.equal(found, small_model(family)(TOKENS).logits)


def shard(folder: Path) -> None:
    """Turn model.safetensors into two shards and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    table = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        table.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    layout = saved(tmp_path / "unit")
    expected = load_flat(tmp_path / "unit", layout)
    shard(tmp_path / "unit")
    assert np.array_equal(load_flat(tmp_path / "unit", layout), expected)
    digest = checkpoint_digest(tmp_path / "unit")
    load_flat(tmp_path / "unit", layout, digest=digest)
    load_model(tmp_path / "unit")


def with_index(folder: Path, name: str) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.embed_tokens.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_header(folder: Path, header: Any, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    data = size.to_bytes(8, "little") + text + b"\0" * 64
    (folder / "model.safetensors").write_bytes(data)


def cut(folder: Path, size: int) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:size])


def linked_outside(folder: Path) -> None:
    with_index(folder, "link.safetensors")
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def configured(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


NORM = "model.norm.weight"
ONE = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "must be a folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "must hold config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "must be JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "must name a model_type"),
    "unknown architecture": (
        lambda f: configured(f, model_type="mystery", auto_map={"AutoConfig": "code.Config"}),
        "trust_remote_code|model_type = 'mystery', the pool has 'llama'",
    ),
    "config of wrong kinds": (lambda f: configured(f, hidden_size="wide"), "config"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "pickled weights": (pickled, "pickled weights.*save_pretrained"),
    "cut in the data": (lambda f: cut(f, 5000), "cut short"),
    "cut in the header": (lambda f: cut(f, 100), "cut short"),
    "empty": (lambda f: cut(f, 0), "cut short"),
    "huge header": (lambda f: with_header(f, {}, 2**63), "claims a header"),
    "header of 1 TiB": (lambda f: with_header(f, {}, 2**40), "claims a header"),
    "header is no JSON": (lambda f: with_header(f, b"\xff{"), "not JSON"),
    "header is deep": (lambda f: with_header(f, b"[" * 200_000), "not JSON"),
    "header is a list": (lambda f: with_header(f, []), "not a JSON object"),
    "tensor is no object": (lambda f: with_header(f, {NORM: 3}), "no sound shape"),
    "negative shape": (lambda f: with_header(f, {NORM: {**ONE, "shape": [-16]}}), "no sound"),
    "shape too large": (
        lambda f: with_header(f, {NORM: {**ONE, "shape": [2**50] * 9}}),
        "64 bytes",
    ),
    "offsets outside": (
        lambda f: with_header(f, {NORM: {**ONE, "shape": [32], "data_offsets": [0, 128]}}),
        "describes",
    ),
    "offsets overlap": (lambda f: with_header(f, {NORM: ONE, "other": ONE}), "overlaps"),
    "unknown dtype": (lambda f: with_header(f, {NORM: {**ONE, "dtype": "Q4"}}), "must be F32"),
    "integer weights": (
        lambda f: changed(f, lambda t: t.update({NORM: t[NORM].to(torch.int32)})),
        "F32, BF16 or F16|must",
    ),
    "index out of the folder": (
        lambda f: with_index(f, "../outside.safetensors"),
        "must lie in the checkpoint's folder",
    ),
    "index at the root": (lambda f: with_index(f, "/etc/passwd"), "must lie in"),
    "link out of the folder": (linked_outside, "must lie in"),
    "missing shard": (lambda f: with_index(f, "absent.safetensors"), "must be readable"),
    "index without a map": (
        lambda f: (
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text("{}"),
        ),
        "weight_map",
    ),
    "missing tensor": (lambda f: changed(f, lambda t: t.pop(NORM)), f"'{NORM}' must be there"),
    "unknown tensor": (
        lambda f: changed(f, lambda t: t.update(extra=torch.ones(2))),
        "'extra' is none",
    ),
    "another shape": (
        lambda f: changed(f, lambda t: t.update({NORM: torch.ones(65)})),
        f"'{NORM}'.*must have (the )?shape",
    ),
    "NaN": (lambda f: changed(f, lambda t: t[NORM].__setitem__(3, torch.nan)), "finite.*norm"),
    "infinity": (lambda f: changed(f, lambda t: t[NORM].__setitem__(3, torch.inf)), "finite.*norm"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    layout = saved(tmp_path / "unit")
    damage, message = BROKEN[case]
    damage(tmp_path / "unit")
    for read in (
        lambda: load_flat(tmp_path / "unit", layout),
        lambda: load_model(tmp_path / "unit"),
    ):
        with pytest.raises(CheckpointError, match=message) as raised:
            read()
        assert "\n" not in str(raised.value)
        assert str(tmp_path / "unit") in str(raised.value)


OLD: dict[str, tuple[str, dict[str, torch.Tensor]]] = {
    "gpt-neox": (
        "gpt_neox.",
        {
            "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
            "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(4),
        },
    ),
    "gpt2": ("transformer.", {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)}),
    "llama": ("model.", {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
}


@pytest.mark.parametrize("family", OLD)
def test_what_transformers_leaves_out_or_renames_is_read_the_same(
    tmp_path: Path, family: str
) -> None:
    folder = tmp_path / "unit"
    layout = saved(folder, family)
    expected = load_flat(folder, layout)
    prefix, buffers = OLD[family]
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, **buffers}, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.array_equal(load_flat(folder, layout), expected)
    assert np.array_equal(flatten(load_model(folder), layout).numpy(), expected)
    bare = {name.removeprefix(prefix): tensor for name, tensor in {**tensors, **buffers}.items()}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.array_equal(load_flat(folder, layout), expected)
    assert np.array_equal(flatten(load_model(folder), layout).numpy(), expected)
    more = {**bare, "extra.bias": torch.ones(1)}
    save_file(more, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"'extra.bias' is none"):
        load_flat(folder, layout)


def test_other_architectures_are_named(tmp_path: Path) -> None:
    layout = layout_of(small_model("llama"))
    saved(tmp_path / "neox", "gpt-neox")
    with pytest.raises(CheckpointError, match=r"model_type = 'gpt_neox', the pool has 'llama'"):
        load_flat(tmp_path / "neox", layout)
    saved(tmp_path / "unit", "llama")
    configured(tmp_path / "unit", num_attention_heads=8, head_dim=8)
    with pytest.raises(CheckpointError, match="num_attention_heads = 8, the pool has 4"):
        load_flat(tmp_path / "unit", layout)


def test_an_altered_checkpoint_fails_its_digest(tmp_path: Path) -> None:
    layout = saved(tmp_path / "unit")
    digest = checkpoint_digest(tmp_path / "unit")
    load_flat(tmp_path / "unit", layout, digest=digest)
    changed(tmp_path / "unit", lambda t: t[NORM].add_(1e-3))
    with pytest.raises(CheckpointError, match=f"must have digest {digest[:12]}"):
        load_flat(tmp_path / "unit", layout, digest=digest)


def test_a_name_that_is_no_folder_and_no_hub_id_is_refused(tmp_path: Path) -> None:
    for name in ("a/b/c", "../none", str(tmp_path / "none"), ""):
        with pytest.raises(CheckpointError, match=r"must be a folder or a hub id|must hold config"):
            load_model(name)
