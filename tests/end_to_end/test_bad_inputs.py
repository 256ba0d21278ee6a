"""Malformed input, as its user meets it: `ablate run` says one line and ends with exit code 2.

Every case starts from a small sound study on real files and breaks one thing. Nothing of the
user's is changed, and the line names the place. Cases that only a word of the study breaks are in
tests/cli.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
)

from ablate import cli, engine
from ablate.cluster.session import session
from ablate.errors import StudyError
from ablate.resources import Cluster
from ablate.study import Study, load_study
from ablate.workspace import write_json

LINES = [json.dumps({"text": f"number {i} of the lines, said {i * i} times"}) for i in range(60)]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with session(Cluster(cpus=2)):
        yield


def llama(**changes: Any) -> LlamaConfig:
    shape: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return LlamaConfig(**(shape | changes))


def write_model(folder: Path, model: Any) -> None:
    model.save_pretrained(folder)
    letters = {"<|endoftext|>": 0} | {chr(33 + i): i + 1 for i in range(94)}
    tokenizer = Tokenizer(BPE(vocab=letters, merges=[]))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    wrapped.save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sound checkpoints of one shape (`seed`, `unit`) and one of another (`other`)."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    write_model(root / "seed", LlamaForCausalLM(llama()))
    write_model(root / "unit", LlamaForCausalLM(llama()))
    gpt2 = GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    write_model(root / "other", GPT2LMHeadModel(gpt2))
    return root


class Place:
    """A folder with a sound study; a case changes `tree` or files, then `run` is called."""

    def __init__(self, root: Path, models: Path) -> None:
        self.root = root
        self.models = models
        for name in ("a", "b", "s"):
            lines = LINES if name == "a" else [line.replace("lines", name) for line in LINES]
            (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        (root / "c.jsonl").write_text(json.dumps({"text": "something else " * 40}) + "\n")
        self.tree: dict[str, Any] = {
            "name": "bad",
            "workspace": "work",
            "corpus": {
                "sources": [
                    {"path": "a.jsonl", "partition": "a"},
                    {"path": "b.jsonl", "partition": "b"},
                ],
                "unit_tokens": 40,
                "heldout": {"documents": 0.2},
                "decontaminate": None,
            },
            "tokenizer": {"train": {"vocab_size": 300}},
            "model": {"preset": "tiny"},
            "seed": {"sources": [{"path": "s.jsonl"}], "tokens": 64},
            "train": {"sequence_length": 8, "batch_tokens": 16},
            "evaluate": {"domains": {"c": "c.jsonl"}, "tokens_per_domain": 50},
        }

    def set(self, key: str, value: Any) -> None:
        node = self.tree
        *path, last = key.split(".")
        for word in path:
            node = node[int(word)] if isinstance(node, list) else node[word]
        node[last] = value

    def drop(self, key: str) -> None:
        del self.tree[key]

    def write(self, name: str, data: bytes | str) -> None:
        (self.root / name).write_bytes(data.encode() if isinstance(data, str) else data)

    def source(self, **changes: Any) -> None:
        self.tree["corpus"]["sources"][0] = {"path": "a.jsonl", "partition": "a"} | changes

    def checkpoint(self, name: str = "mine", of: str = "seed") -> Path:
        """Copy a sound checkpoint beside the study, and start from it."""
        shutil.copytree(self.models / of, self.root / name)
        return self.root / name

    def start_from(self, folder: Path) -> None:
        self.tree["model"] = {"path": f"./{folder.name}"}
        for key in ("tokenizer", "seed"):
            self.tree.pop(key, None)

    def bring(self, *folders: Path) -> None:
        """Bring units trained elsewhere, from a sound seed."""
        self.start_from(self.checkpoint("sound"))
        self.tree["units"] = {"law": [f"./{folder.name}" for folder in folders]}


def weights(place: Place, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    folder = place.checkpoint(of="unit")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    place.bring(folder)


def missing_column(p: Place) -> str:
    p.source(text="body")
    return "body"


def empty_file(p: Place) -> str:
    p.write("a.jsonl", "")
    return "a.jsonl"


def only_blank_lines(p: Place) -> str:
    p.write("a.jsonl", "\n\n   \n")
    return "a.jsonl"


def bad_json_line(p: Place) -> str:
    p.write("a.jsonl", LINES[0] + '\n{"text": "unclosed\n')
    return "a.jsonl:2"


def json_line_no_object(p: Place) -> str:
    p.write("a.jsonl", "[1, 2]\n")
    return "a.jsonl"


def text_is_a_number(p: Place) -> str:
    p.write("a.jsonl", '{"text": 7}\n' * 60)
    return "60 without a text"


def latin_1(p: Place) -> str:
    p.write("a.jsonl", '{"text": "caf\u00e9"}\n'.encode("latin-1") * 60)
    return "UTF-8"


def utf_16(p: Place) -> str:
    p.write("a.txt", "words in another encoding\n".encode("utf-16") * 5)
    p.source(path="a.txt")
    return "a.txt"


def truncated_gzip(p: Place) -> str:
    p.write("a.jsonl.gz", gzip.compress("\n".join(LINES * 20).encode())[:-200])
    p.source(path="a.jsonl.gz")
    return "a.jsonl.gz"


def gzip_that_is_none(p: Place) -> str:
    p.write("a.jsonl.gz", "\n".join(LINES))
    p.source(path="a.jsonl.gz")
    return "a.jsonl.gz"


def zstd_that_is_none(p: Place) -> str:
    p.write("a.jsonl.zst", "\n".join(LINES))
    p.source(path="a.jsonl.zst")
    return "a.jsonl.zst"


def truncated_parquet(p: Place) -> str:
    pq.write_table(pa.table({"text": LINES}), p.root / "a.parquet")
    p.write("a.parquet", (p.root / "a.parquet").read_bytes()[:-30])
    p.source(path="a.parquet")
    return "a.parquet"


def parquet_without_the_column(p: Place) -> str:
    pq.write_table(pa.table({"body": LINES}), p.root / "a.parquet")
    p.source(path="a.parquet")
    return "text"


def empty_folder(p: Place) -> str:
    (p.root / "none").mkdir()
    p.source(path="./none")
    return "none"


def glob_of_nothing(p: Place) -> str:
    p.source(path="z*.jsonl")
    return "z*.jsonl"


def unknown_suffix(p: Place) -> str:
    p.write("a.docx", "words")
    p.source(path="a.docx")
    return "a.docx"


def partition_column_is_missing(p: Place) -> str:
    p.tree["corpus"]["sources"][0] = {"path": "a.jsonl", "partition_by": ["field"]}
    return "field"


def a_value_names_another_partition(p: Place) -> str:
    rows = [json.dumps({"text": f"row {i} of it", "field": "b"}) for i in range(60)]
    p.write("a.jsonl", "\n".join(rows))
    p.tree["corpus"]["sources"][0] = {"path": "a.jsonl", "partition_by": ["field"]}
    return "'b'"


def partition_below_one_unit(p: Place) -> str:
    p.set("corpus.unit_tokens", 1_000_000)
    return "short_units"


def everything_held_out(p: Place) -> str:
    p.set("corpus.heldout", {"documents": 0.999999})
    return "a 0, b 0"


def everything_is_contaminated(p: Place) -> str:
    p.set("corpus.decontaminate", {"ngram": 1, "max_overlap": 0})
    p.write("c.jsonl", "\n".join(LINES))
    return "'a'"


def all_documents_are_one(p: Place) -> str:
    p.write("a.jsonl", (LINES[0] + "\n") * 60)
    return "training tokens, got a "


def empty_domain(p: Place) -> str:
    p.write("c.jsonl", "")
    return "c.jsonl"


def domain_of_one_token(p: Place) -> str:
    p.write("c.jsonl", '{"text": ""}\n')
    return "c"


def tokenizer_has_more_words_than_the_model(p: Place) -> str:
    p.set("model", {"preset": "tiny", "overrides": {"vocab_size": 20}})
    return "vocab"


def tokenizer_folder_without_files(p: Place) -> str:
    (p.root / "tok").mkdir()
    p.set("tokenizer", {"path": "./tok"})
    return "tok"


def sequence_longer_than_the_model(p: Place) -> str:
    p.start_from(p.checkpoint())
    p.set("train", {"sequence_length": 128, "batch_tokens": 128})
    return "128"


def odd_heads(p: Place) -> str:
    p.set("model", {"preset": "tiny", "overrides": {"num_attention_heads": 7}})
    return "model.overrides"


def checkpoint_is_missing(p: Place) -> str:
    p.start_from(p.root / "nowhere")
    return "nowhere"


def checkpoint_without_config(p: Place) -> str:
    folder = p.checkpoint()
    (folder / "config.json").unlink()
    p.start_from(folder)
    return "config.json"


def config_is_no_json(p: Place) -> str:
    folder = p.checkpoint()
    (folder / "config.json").write_text("{")
    p.start_from(folder)
    return "config.json"


def checkpoint_without_weights(p: Place) -> str:
    folder = p.checkpoint()
    (folder / "model.safetensors").unlink()
    p.start_from(folder)
    return "safetensors"


def pickled_weights_only(p: Place) -> str:
    folder = p.checkpoint()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    p.start_from(folder)
    return "safetensors"


def no_causal_model(p: Place) -> str:
    folder = p.checkpoint()
    T5Config(d_model=16, d_ff=32, num_layers=1, num_heads=2).save_pretrained(folder)
    p.start_from(folder)
    return "causal"


def needs_remote_code(p: Place) -> str:
    folder = p.checkpoint()
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    p.start_from(folder)
    return "trust_remote_code"


def unit_of_another_architecture(p: Place) -> str:
    p.bring(p.checkpoint(of="other"))
    return "mine"


def unit_of_another_width(p: Place) -> str:
    folder = p.root / "mine"
    write_model(folder, LlamaForCausalLM(llama(hidden_size=32)))
    p.bring(folder)
    return "one architecture"


def truncated_safetensors(p: Place) -> str:
    folder = p.checkpoint(of="unit")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    p.bring(folder)
    return "model.safetensors"


def safetensors_with_a_huge_header(p: Place) -> str:
    folder = p.checkpoint(of="unit")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    p.bring(folder)
    return "model.safetensors"


def nan_weights(p: Place) -> str:
    weights(p, lambda t: t["model.norm.weight"].fill_(float("nan")))
    return "model.norm.weight"


def infinite_weights(p: Place) -> str:
    weights(p, lambda t: t["model.norm.weight"].fill_(float("inf")))
    return "model.norm.weight"


def a_unit_unlike_its_own_record(p: Place) -> str:
    folder = p.checkpoint(of="unit")
    write_json(folder / "training.json", {"kind": "unit", "digest": "ab" * 32})
    p.bring(folder)
    return "it was altered"


def a_tensor_is_missing(p: Place) -> str:
    weights(p, lambda t: t.__delitem__("model.norm.weight"))
    return "model.norm.weight"


def a_tensor_too_many(p: Place) -> str:
    weights(p, lambda t: t.update({"model.extra": torch.zeros(3)}))
    return "model.extra"


def a_tensor_of_integers(p: Place) -> str:
    weights(p, lambda t: t.update({"model.norm.weight": torch.ones(16, dtype=torch.int64)}))
    return "model.norm.weight"


def budget_below_every_mixture(p: Place) -> str:
    p.set("search", {"space": {"max_tokens": 1}})
    return "max_tokens"


def budget_below_what_is_included(p: Place) -> str:
    p.set("search", {"space": {"include": ["a", "b"], "max_tokens": 41}})
    return "max_tokens"


def size_above_the_partitions(p: Place) -> str:
    p.set("search", {"space": {"min_size": 3}})
    return "min_size"


def bounds_that_cannot_sum_to_one(p: Place) -> str:
    p.set("search", {"space": {"kind": "simplex", "bounds": {"a": [0, 0.2], "b": [0, 0.2]}}})
    return "bounds"


def objective_of_nothing_known(p: Place) -> str:
    p.set("search", {"objective": {"weighted": {"law": 1}}})
    return "'law'"


def no_mapping(p: Place) -> str:
    p.write("study.yaml", "- a\n- b\n")
    return "study.yaml"


def yaml_that_does_not_parse(p: Place) -> str:
    p.write("study.yaml", "name: [a\nworkspace: b\n")
    return "study.yaml"


def yaml_key_twice(p: Place) -> str:
    p.write("study.yaml", "name: a\nname: b\n")
    return "name"


def yaml_tag(p: Place) -> str:
    p.write("study.yaml", "name: !!python/object/apply:os.system ['true']\n")
    return "study.yaml"


def study_in_another_encoding(p: Place) -> str:
    p.write("study.yaml", "name: caf\u00e9\n".encode("latin-1"))
    return "study.yaml"


def number_that_is_none(p: Place) -> str:
    p.set("train.learning_rate", float("nan"))
    return "train.learning_rate"


def empty_study(p: Place) -> str:
    p.write("study.yaml", "")
    return "study.yaml"


CASES: list[Callable[[Place], str]] = [
    missing_column, empty_file, only_blank_lines, bad_json_line, json_line_no_object,
    text_is_a_number, latin_1, utf_16, truncated_gzip, gzip_that_is_none, zstd_that_is_none,
    truncated_parquet, parquet_without_the_column, empty_folder, glob_of_nothing, unknown_suffix,
    partition_column_is_missing, a_value_names_another_partition, partition_below_one_unit,
    everything_held_out, everything_is_contaminated, all_documents_are_one, empty_domain,
    domain_of_one_token, tokenizer_has_more_words_than_the_model, tokenizer_folder_without_files,
    sequence_longer_than_the_model, odd_heads, checkpoint_is_missing, checkpoint_without_config,
    config_is_no_json, checkpoint_without_weights, pickled_weights_only, no_causal_model,
    needs_remote_code, unit_of_another_architecture, unit_of_another_width, truncated_safetensors,
    safetensors_with_a_huge_header, nan_weights, infinite_weights, a_tensor_is_missing,
    a_unit_unlike_its_own_record,
    a_tensor_too_many, a_tensor_of_integers, budget_below_every_mixture,
    budget_below_what_is_included, size_above_the_partitions, bounds_that_cannot_sum_to_one,
    objective_of_nothing_known, no_mapping, yaml_that_does_not_parse, yaml_key_twice, yaml_tag,
    study_in_another_encoding, number_that_is_none, empty_study,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_line_and_exit_code_2(
    case: Callable[[Place], str],
    tmp_path: Path,
    models: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(tmp_path, models)
    told = case(place)
    study = tmp_path / "study.yaml"
    if not study.exists():
        study.write_text(yaml.safe_dump(place.tree))
    mine = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    monkeypatch.setattr(sys, "argv", ["ablate", "run", str(study)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capfd.readouterr()
    last = err.strip().splitlines()[-1]
    assert stop.value.code == 2, err
    assert out == ""
    assert last.startswith("ablate: "), err
    assert told in last, last
    assert "Traceback" not in err and err.count("ablate: ") == 1, err
    assert all(file.read_bytes() == data for file, data in mine.items())
    assert not (tmp_path / "work" / "trials.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"deepspeed": {"zero_optimization": {"stage": 9}}}, "stage must be 0, 1, 2 or 3, got 9"),
        ({"train": {"workers_per_run": 3}}, "workers"),
    ],
)
def test_a_cluster_that_cannot_train_is_refused_before_the_corpus(
    settings: dict[str, Any], told: str, tmp_path: Path, models: Path
) -> None:
    place = Place(tmp_path, models)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(place.tree))
    study = load_study(tmp_path / "study.yaml")
    for verb in (engine.train, engine.run):
        with pytest.raises(StudyError, match=told):
            verb(study, cluster=Cluster.model_validate(settings))
    assert not (tmp_path / "work" / "corpus").exists()


@pytest.mark.parametrize("verb", [engine.train, engine.search, engine.run, engine.validate])
def test_a_search_that_is_refused_writes_nothing(
    verb: Callable[[Study], Any], tmp_path: Path, models: Path
) -> None:
    place = Place(tmp_path, models)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(place.tree))
    study = load_study(tmp_path / "study.yaml", ["search.algorithm=atuo"])
    with pytest.raises(StudyError, match=r"did you mean 'auto'\?"):
        verb(study)
    assert not (tmp_path / "work").exists()
