"""A checkpoint with model code of its own: trained and exported when trusted, else never run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.corpus.values import Corpus, TokenizerInfo
from ablate.errors import CheckpointError
from ablate.export import Answer, Member, write_export
from ablate.imports import check_imports, import_seed
from ablate.mixture import Mixture
from ablate.models.checkpoint import load_flat
from ablate.models.layout import layout_of
from ablate.models.load import load_model
from ablate.study import Study
from ablate.train.finished import is_complete
from ablate.train.job import Start
from ablate.train.loop import train_one
from tests.train.runs import Listener, job, placement

pytestmark = pytest.mark.usefixtures("alone")

CODE = """
import os
from transformers import LlamaConfig, LlamaForCausalLM
from .sizes import SCALE

with open(os.environ["CODE_RAN"], "a") as ran:
    ran.write("ran")

class OurConfig(LlamaConfig):
    model_type = "ours"

class OurModel(LlamaForCausalLM):
    config_class = OurConfig

    def forward(self, *args, **named):
        found = super().forward(*args, **named)
        found.logits = found.logits * SCALE
        return found
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the model code has run."""
    monkeypatch.setenv("CODE_RAN", str(tmp_path / "ran"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.syspath_prepend(str(tmp_path / "m"))
    return tmp_path / "ran"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A checkpoint whose config names classes in its own code.py."""
    folder = tmp_path / "ours"
    shape = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(**shape, num_attention_heads=2, max_position_embeddings=64)
    LlamaForCausalLM(config).save_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "code.OurConfig", "AutoModelForCausalLM": "code.OurModel"}
    values |= {"model_type": "ours", "architectures": ["OurModel"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "code.py").write_text(CODE)
    (folder / "sizes.py").write_text("SCALE = 2.0\n")
    return folder


def study(root: Path, folder: Path, *, trusted: bool) -> Study:
    return Study.model_validate(
        {
            "name": "x", "workspace": str(root), "units": {"law": [str(folder)]},
            "model": {"path": str(folder), "trust_remote_code": trusted},
            "train": {"sequence_length": 32, "batch_tokens": 256},
        }
    )  # fmt: skip


def test_trusted_code_goes_wherever_the_model_goes(root: Path, ran: Path, ours: Path) -> None:
    asked = study(root, ours, trusted=True)
    workspace = asked.open_workspace()
    shutil.copytree(root / "tokenizer", workspace.tokenizer)
    tokenizer = TokenizerInfo(fingerprint="t", vocab_size=256, eos_token_id=0)
    corpus = Corpus(
        fingerprint="c", tokenizer=tokenizer, partitions={}, domains={}, seed=None,
        seed_dropped={}, inputs={},
    )  # fmt: skip
    check_imports(asked)
    seed = import_seed(asked, corpus, workspace)
    ids = torch.arange(16)[None]
    expected = load_model(ours, trust_remote_code=True)(ids).logits
    (ours / "sizes.py").write_text("SCALE = 3.0\n")
    assert import_seed(asked, corpus, workspace).fingerprint != seed.fingerprint
    shutil.rmtree(ours)
    folder = workspace.root / seed.folder
    start = Start(mark=seed.fingerprint, folder=str(folder), trust_remote_code=True)
    unit = job(root, "unit", start=start, steps=2)
    assert train_one(unit, placement(), Listener()) and is_complete(unit.path, unit)
    (unit.path / "sizes.py").write_text("SCALE = 4.0\n")
    assert not is_complete(unit.path, unit)
    assert train_one(unit, placement(), Listener())

    model = load_model(folder, trust_remote_code=True)
    assert torch.equal(model(ids).logits, expected) and type(model).__name__ == "OurModel"
    layout = layout_of(model)
    assert not np.array_equal(load_flat(folder, layout), load_flat(unit.path, layout))
    answer = Answer(
        mixture=Mixture.of({"law": 1.0}), units={"law": 1}, available_tokens={}, sources={},
        members=(Member(partition="law", index=0, folder=unit.path, coefficient=1.0),),
        seed_folder=folder, tokenizer_folder=workspace.tokenizer, trust_remote_code=True,
    )  # fmt: skip
    out = write_export(answer, "checkpoint", root / "out")
    merged = load_model(out, trust_remote_code=True)
    trained = load_model(unit.path, trust_remote_code=True)
    assert torch.equal(merged(ids).logits, trained(ids).logits) and ran.exists()
    with pytest.raises(CheckpointError, match=r"set model.trust_remote_code=true"):
        write_export(replace(answer, trust_remote_code=False), "checkpoint", root / "other")


def test_code_that_is_not_trusted_is_refused_and_never_run(
    root: Path, ran: Path, ours: Path
) -> None:
    start = Start(mark="x", folder=str(ours))
    for use in (
        lambda: check_imports(study(root, ours, trusted=False)),
        lambda: load_model(ours),
        lambda: train_one(job(root, "unit", start=start), placement(), Listener()),
    ):
        with pytest.raises(CheckpointError, match=r"set\s+model.trust_remote_code=true") as raised:
            use()
        assert "\n" not in str(raised.value)
    assert not ran.exists()
