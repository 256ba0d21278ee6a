"""Pickles and model code under every name that a library might open: none of them runs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ablate.corpus.tokenizer import load_tokenizer
from ablate.errors import UserError
from ablate.models.checkpoint import checkpoint_digest, load_flat
from ablate.models.layout import layout_of
from ablate.models.load import load_model

NAMES = (
    "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "optimizer.pt", "scheduler.pt",
    "training_args.bin", "rng_state.pth", "model.pt", "consolidated.00.pth", "tokenizer.model",
    "vocab.pkl", "spiece.model", "tf_model.h5", "flax_model.msgpack", "adapter_model.bin",
    "optimizer.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json",
    "generation_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "preprocessor_config.json", "quantization_config.json",
)  # fmt: skip


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


def checkpoint(folder: Path) -> Path:
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    letters = {"<|endoftext|>": 0} | {chr(33 + i): i + 1 for i in range(94)}
    tokenizer = Tokenizer(BPE(vocab=letters, merges=[]))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    wrapped.save_pretrained(folder)
    return folder


def tried(folder: Path) -> None:
    """Read a checkpoint in every way that there is; one line or a model, nothing else."""
    for read in (
        load_model,
        checkpoint_digest,
        lambda path: load_tokenizer(str(path), "tokenizer.path"),
    ):
        try:
            read(folder)  # type: ignore[operator]
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("saved", [False, True], ids=["pickle", "torch.save"])
def test_a_pickle_beside_the_weights_is_never_read(tmp_path: Path, saved: bool) -> None:
    folder, marker = checkpoint(tmp_path / "model"), tmp_path / "owned"
    for name in NAMES:
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        if saved:
            torch.save(Payload(marker), path)
        else:
            path.write_bytes(pickle.dumps(Payload(marker)))
        tried(folder)
        assert not marker.exists(), name
        path.unlink() if before is None else path.write_bytes(before)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "training.json"]
)
def test_a_pickle_in_place_of_a_file_is_one_line(tmp_path: Path, name: str) -> None:
    folder, marker = checkpoint(tmp_path / "model"), tmp_path / "owned"
    layout = layout_of(load_model(folder))
    (folder / name).write_bytes(pickle.dumps(Payload(marker)))
    tried(folder)
    if name in ("model.safetensors", "config.json"):
        with pytest.raises(UserError):
            load_flat(folder, layout)
    assert not marker.exists()


def test_only_pickled_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder, marker = checkpoint(tmp_path / "model"), tmp_path / "owned"
    (folder / "model.safetensors").unlink()
    torch.save(Payload(marker), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights"):
        load_model(folder)
    assert not marker.exists()


CODE = (
    "open({marker!r}, 'w').close()\nfrom transformers import *\nclass X(LlamaForCausalLM): pass\n"
)
MAPS = {
    "AutoConfig": "modeling_x.X", "AutoModelForCausalLM": "modeling_x.X", "AutoModel": "modeling_x.X",
    "AutoTokenizer": ["modeling_x.X", "modeling_x.X"],
}  # fmt: skip


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("kind", ["llama", "x-own"])
def test_model_code_does_not_run_unasked(tmp_path: Path, file: str, kind: str) -> None:
    folder, marker = checkpoint(tmp_path / "model"), tmp_path / "owned"
    (folder / "modeling_x.py").write_text(CODE.format(marker=str(marker)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    values: dict[str, Any] = json.loads((folder / file).read_text())
    values |= {"auto_map": MAPS, "trust_remote_code": True}
    if file == "config.json":
        values["model_type"] = kind
    (folder / file).write_text(json.dumps(values))
    tried(folder)
    assert not marker.exists()
