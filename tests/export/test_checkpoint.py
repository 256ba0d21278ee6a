"""An exported checkpoint is the weighted sum of the unit checkpoints, and a model like any."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from ablate.errors import CheckpointError, StudyError
from ablate.export import Answer, Member, write_export
from ablate.merge.weights import unit_coefficients
from ablate.mixture import Mixture
from ablate.models.build import build_model
from ablate.models.checkpoint import save_checkpoint
from ablate.models.layout import flatten, layout_of
from ablate.study import ModelSettings

UNITS = {"law": 2, "math": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Return four small checkpoints (seed, law 0, law 1, math 0) with their digests."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    vocabulary = {f"t{i}": i for i in range(64)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), eos_token="t1"
    ).save_pretrained(root / "tokenizer")
    settings = ModelSettings(preset="tiny", overrides={"hidden_size": 64, "num_hidden_layers": 2})
    made = {"tokenizer": (root / "tokenizer", "")}
    for seed, name in enumerate(("seed", "law-0", "law-1", "math-0")):
        model = build_model(settings, 64, 1, seed, 32)
        layout = layout_of(model)
        digest = save_checkpoint(
            root / name,
            config=model.config,
            layout=layout,
            flat=flatten(model, layout),
            tokenizer_folder=root / "tokenizer",
            training={},
        )
        made[name] = (root / name, digest)
    return made


def answer(folders: dict[str, tuple[Path, str]], scale: float | None = None) -> Answer:
    mixture = Mixture.of({"law": 0.3, "math": 0.7})
    seed, coefficients = unit_coefficients(mixture, UNITS, scale)
    return Answer(
        mixture=mixture,
        units=UNITS,
        available_tokens={"law": 100, "math": 100},
        sources={},
        members=tuple(
            Member(
                partition=name,
                index=index,
                folder=folders[f"{name}-{index}"][0],
                digest=folders[f"{name}-{index}"][1],
                coefficient=coefficient,
            )
            for (name, index), coefficient in coefficients
        ),
        seed_folder=folders["seed"][0],
        seed_digest=folders["seed"][1],
        seed_coefficient=seed,
        tokenizer_folder=folders["tokenizer"][0],
    )


@pytest.mark.parametrize("scale", [None, 0.8])
def test_weights_equal_the_float64_sum(
    folders: dict[str, tuple[Path, str]], tmp_path: Path, scale: float | None
) -> None:
    asked = answer(folders, scale)
    out = write_export(asked, "checkpoint", tmp_path / "best")
    merged = load_file(out / "model.safetensors")
    terms = [(asked.seed_folder, asked.seed_coefficient)]
    terms += [(member.folder, member.coefficient) for member in asked.members]
    for name, tensor in merged.items():
        exact = sum(
            c * load_file(folder / "model.safetensors")[name].numpy().astype(np.float64)
            for folder, c in terms
        )
        assert np.all(np.abs(tensor.numpy() - exact) <= np.spacing(np.abs(tensor.numpy())))
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.isfinite(model(input_ids=torch.tensor([[1, 2, 3]])).logits).all()
    assert AutoTokenizer.from_pretrained(out).eos_token == "t1"


def test_bfloat16_is_the_rounded_float32(
    folders: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    asked = answer(folders)
    whole = load_file(write_export(asked, "checkpoint", tmp_path / "f") / "model.safetensors")
    half = write_export(asked, "checkpoint", tmp_path / "b", dtype="bfloat16")
    for name, tensor in load_file(half / "model.safetensors").items():
        assert torch.equal(tensor, whole[name].to(torch.bfloat16))
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_same_export_is_kept_and_another_refused(
    folders: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    asked, to = answer(folders), tmp_path / "best"
    write_export(asked, "checkpoint", to)
    written = (to / "model.safetensors").stat().st_mtime_ns
    write_export(asked, "checkpoint", to)
    assert (to / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(StudyError, match="must not replace"):
        write_export(answer(folders, 0.5), "checkpoint", to)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match="must not replace"):
        write_export(asked, "checkpoint", tmp_path / "notes")
    (tmp_path / "empty").mkdir()
    assert write_export(asked, "checkpoint", tmp_path / "empty") == tmp_path / "empty"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_export_is_written_again(
    folders: dict[str, tuple[Path, str]], tmp_path: Path, name: str
) -> None:
    asked, to = answer(folders), tmp_path / "best"
    write_export(asked, "checkpoint", to)
    file = to / name
    whole = file.read_bytes()
    for damage in (file.unlink, lambda: file.write_bytes(whole[:-7])):
        damage()
        write_export(asked, "checkpoint", to)
        assert file.read_bytes() == whole


def test_an_altered_member_is_never_merged(
    folders: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    asked = answer(folders)
    wrong = replace(asked.members[0], digest="0" * 64)
    with pytest.raises(CheckpointError, match="digest"):
        write_export(
            replace(asked, members=(wrong, *asked.members[1:])), "checkpoint", tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()


def test_unknown_dtype_is_refused(folders: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="dtype"):
        write_export(answer(folders), "checkpoint", tmp_path / "x", dtype="int4")
