"""The command line as its user meets it: exit codes, one line, nothing on the wrong stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate import cli

NOBODY = ("--address", "http://127.0.0.1:1")
STUDY = """
name: tiny
workspace: work
corpus: {sources: [{path: a.jsonl, partition: a}, {path: b.txt, partition: b}], unit_tokens: 40}
tokenizer: {train: {vocab_size: 300}}
model: {preset: tiny}
seed: {sources: [{path: b.txt}], tokens: 64}
train: {sequence_length: 8, batch_tokens: 16}
evaluate: {domains: {c: c.txt}, tokens_per_domain: 50}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": f"number {i} of the lines in a"}) for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "b.txt").write_text("".join(f"a line of text, the {i}th\n" for i in range(40)))
    (tmp_path / "c.txt").write_text("something else, quite different\n" * 3 + "and more\n")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def call(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of `ablate words...`."""
    before = sys.argv
    sys.argv = ["ablate", *words]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_plan_prints_costs_and_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    code, out, err = call("plan", str(folder / "study.yaml"), capsys=capsys)
    assert (code, err) == (0, "")
    assert "the naive way" in out and "3 of 3 mixtures" in out
    assert max(len(line) for line in out.splitlines()) <= 80
    code, out, _ = call("plan", str(folder / "study.yaml"), "--json", capsys=capsys)
    found = json.loads(out)
    assert (found["mixtures"], found["runs"]) == (
        3,
        sum(p["units"] for p in found["partitions"]) + 1,
    )
    forecast = found["forecast"]
    assert [stage["name"] for stage in forecast["stages"]] == ["prepare", "train", "search"]
    assert forecast["seconds"] == pytest.approx(sum(s["seconds"] for s in forecast["stages"]))
    assert forecast["hardware"]["cpus"] == os.cpu_count() and forecast["problems"] == []
    assert sorted(folder.rglob("*")) == before


def test_plan_names_what_a_cluster_does_not_hold(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cluster.yaml").write_text(
        "train: {gpus_per_worker: 1, workers_per_run: 2}\ntrial: {gpus: 0.5}\n"
        "nodes: {count: 3, cpus: 8, gpus: 1, memory_gb: 64, gpu_memory_gb: 0.001, "
        "object_store_gb: 0.001, memory_gb_per_second: 50, price_per_hour: 2}\n"
    )
    words = ("plan", str(folder / "study.yaml"), "--cluster", str(folder / "cluster.yaml"))
    code, out, err = call(*words, capsys=capsys)
    text = " ".join(out.split())
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    assert "does not fit a node's object store of 0.001 GB" in text
    assert "a training worker of" in text and "raise the ZeRO stage" in text
    assert "Wall time on 3 node(s) of 8 CPUs and 1 GPUs" in text and "cost 0." in text
    forecast = json.loads(call(*words, "--json", capsys=capsys)[1])["forecast"]
    assert forecast["places"]["lanes"] == 1 and forecast["places"]["nodes_per_run"] == 2
    assert forecast["cost"] == pytest.approx(2 * 3 * forecast["seconds"] / 3600)
    assert forecast["traffic"]["network"] == pytest.approx(
        forecast["traffic"]["workers_between_nodes"] + 2 * forecast["memory"]["pool"]
    )


def test_plan_counts_what_validate_would_train(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Rates are given: nothing has to be measured for them.
    rates = folder / "cluster.yaml"
    rates.write_text("nodes: {cpu_gflops: 20, memory_gb_per_second: 10}\n")
    study, where = str(folder / "study.yaml"), ("--cluster", str(rates))

    def planned(*overrides: str) -> Any:
        return json.loads(call("plan", study, *overrides, *where, "--json", capsys=capsys)[1])

    plain = planned()
    assert (plain["validation_runs"], plain["validation_tokens"]) == (0, 0)
    asked = ["validate.mixtures=2", "validate.replicates=3"]
    found = planned(*asked)
    # The one size of two partitions or more is both of them: all unit tokens in every run.
    assert found["validation_runs"] == 6
    assert found["validation_tokens"] == 6 * plain["unit_training_tokens"]
    assert found["validation_flops"] > plain["validation_flops"] == 0
    assert [stage["name"] for stage in found["forecast"]["stages"]][-1] == "validate"
    # What is replayed beside a unit's text is no part of a mixture.
    replayed = [*asked, "train.replay={fraction: 0.5, from: seed}"]
    again = planned(*replayed)
    assert again["unit_training_tokens"] > plain["unit_training_tokens"]
    assert again["validation_tokens"] == found["validation_tokens"]
    fixed = [*asked, "validate.tokens=fixed", "validate.total_tokens=1000"]
    assert planned(*fixed)["validation_tokens"] == 6_000
    _, out, _ = call("plan", study, *asked, *where, capsys=capsys)
    assert "about 6 runs" in out and max(len(line) for line in out.splitlines()) <= 80


def test_schemas_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    for of in ("study", "cluster"):
        code, out, _ = call("schema", of, capsys=capsys)
        assert code == 0 and "properties" in json.loads(out)
    properties = json.loads(call("schema", capsys=capsys)[1])["properties"]
    assert "validate" in properties and all(
        "description" in p or "$ref" in p for p in properties.values()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["plan", "STUDY", "train.lerning_rate=1"], "did you mean 'learning_rate'"),
        (["plan", "STUDY", "valdiate.mixtures=3"], "did you mean 'validate'"),
        (["plan", "STUDY", "validate.mixturs=3"], "did you mean 'mixtures'"),
        (["plan", "STUDY", "train.replay={fraction: 0.5, form: seed}"], "did you mean 'from'"),
        (["plan", "STUDY", "corpus.sources=a.jsonl"], "must be a list, got 'a.jsonl'"),
        (["plan", "STUDY", "corpus.unit_tokens=yes"], "must be a number, got True"),
        (["plan", "STUDY", "train.replay=0.5"], "must hold keys and values, got 0.5"),
        (["plan", "STUDY", "name=2026-01-01"], "must be text (in quotes"),
        (["plan", "STUDY", "name=[1"], "line 1, column"),
        (["plan", "STUDY", f"evaluate.domains.c={'x' * 9000}"], "names of at most 255 bytes"),
        (["plan", "STUDY", f"corpus.sources.0.path=file:///{'x' * 300}"], "at most 255 bytes"),
        (["plan", "STUDY", f"workspace={'x/' * 3000}"], "3,072 in all"),
        (["plan", "STUDY", 'workspace="a\\0b"'], "no NUL character"),
        (["plan", "STUDY", 'corpus.sources.0.path="a\\0b"'], "no NUL character"),
        (["plan", "."], "got a folder"),
        (["plan", "STUDY", "corpus.sources.0.path=gone.jsonl"], "gone.jsonl"),
        (["plan", "STUDY", "corpus.sources.0.text=body"], "body"),
        (["plan", "STUDY", "corpus.sources.1.partition=a"], "'a'"),
        (["plan", "STUDY", "evaluate.domains.a=c.txt"], "share a name"),
        (["plan", "STUDY", "search.space.max_size=0"], "max_size"),
        (["plan", "STUDY", "search.space.min_size=3"], "min_size"),
        (["plan", "STUDY", "search.space.include=[q]"], "'q'"),
        (["plan", "STUDY", "search.space.max_tokens=1"], "max_tokens"),
        (["plan", "STUDY", "train.batch_tokens=12"], "sequence_length"),
        (["plan", "STUDY", "model.overrides={hiden_size: 8}"], "did you mean 'hidden_size'"),
        (["plan", "STUDY", "search.algorithm=tpee"], "did you mean 'tpe'"),
        (["plan", "STUDY", "search.merge.method=liner"], "did you mean 'linear'"),
        (["plan", "STUDY", "search.merge.method=no.such:thing"], "no.such"),
        (
            ["plan", "STUDY", "search.merge={alternatives: [{method: tiess}]}"],
            "did you mean 'ties'",
        ),
        (["plan", "STUDY", "search.merge={alternatives: [{method: linear}]}"], "must differ"),
        (["plan", "STUDY", "search.merge={alternatives: [{method: ensemble}]}"], "the ensemble"),
        (
            ["plan", "STUDY", "search.merge={alternatives: [{method: ties}]}", "search.racing={}"],
            "search.racing",
        ),
        (["plan", "STUDY", "search.objective={domain: q}"], "'q'"),
        (["plan", "STUDY", "--cluster", "gone.yaml"], "gone.yaml"),
        (["plan", "STUDY", "workspace=ftp://x"], "ftp://x"),
        (["plan", "STUDY", "workspace=a.jsonl"], "workspace must be a folder"),
        (["prepare", "STUDY", "workspace=/proc/x"], "workspace must be a folder"),
        (["plan", "STUDY", "units={a: [a.jsonl]}"], "a checkpoint must be a folder"),
        (["train", "STUDY", "search.space.max_tokens=-1"], "max_tokens"),
        (["search", "STUDY"], "ablate prepare"),
        (["score", "STUDY", "--mixture", "best"], "ablate prepare"),
        (["export", "STUDY", "--to", "x"], "ablate prepare"),
        (["validate", "STUDY"], "ablate prepare"),
        (
            ["validate", "STUDY", "--rounds", "-1"],
            "--rounds must be a whole number from 0 on, got '-1'",
        ),
        (
            ["validate", "STUDY", "--rounds", "x"],
            "--rounds must be a whole number from 0 on, got 'x'",
        ),
        (["validate", "STUDY", "--rounds", "1.5"], "got '1.5'"),
        (["init", ""], "init must be given a folder, got no name"),
        (["plan", "/proc/self/mem"], "/proc/self/mem must be a file that can be read"),
        (["plan", "STUDY", "--cluster", "/proc/self/mem"], "must be a file that can be read"),
        (["plan", "STUDY", "model.overrides.num_attention_heads=0"], "num_attention_heads must be"),
        (["plan", "STUDY", "model.overrides.num_hidden_layers=100000000"], "must be 1 to 1,000"),
        (["plan", "STUDY", "model.overrides.attention_dropout=5"], "overrides must make a model"),
        (["plan", "STUDY", "validate={mixtures: 0}"], "validate.mixtures"),
        (["plan", "STUDY", "validate={tokens: fixd}"], "validate.tokens"),
        (["plan", "STUDY", "train.replay={fraction: 1.0}"], "train.replay.fraction"),
        (["plan", "STUDY", "train.replay={fraction: 0.5, from: sed}"], "train.replay"),
        (["report", "STUDY"], "ablate prepare"),
        (["score", "STUDY"], "--mixture"),
        (["schema", "nonsense"], "nonsense"),
        (["submit", "STUDY"], "--address must name"),
        (["submit", "STUDY", *NOBODY], "must answer at http://127.0.0.1:1,"),
        (["status", "STUDY", *NOBODY], "must answer at http://127.0.0.1:1,"),
        (["submit", "STUDY", "--address", "ray://head:10001"], "ray://head:10001"),
        (["submit", "STUDY", *NOBODY, "train.lerning_rate=1"], "did you mean 'learning_rate'"),
        (["submit", "STUDY", *NOBODY, "search.algorithm=tpee"], "did you mean 'tpe'"),
        (["submit", "STUDY", *NOBODY, "workspace=s3://bucket"], "below a bucket"),
        (["submit", "STUDY", *NOBODY, "--cluster", "gone.yaml"], "gone.yaml"),
        (["submit", "STUDY", *NOBODY, "--verb", "frobnicate"], "frobnicate"),
        (["submit", "STUDY", *NOBODY, "--verb", "report", "--json"], "--json"),
        (
            ["submit", "STUDY", *NOBODY, "--with-files", "corpus.sources.0.path=gone.jsonl"],
            "gone.jsonl",
        ),
        (["status", "STUDY", *NOBODY, "--follow", "--cancel"], "--follow and --cancel"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    folder: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = call(*[w.replace("STUDY", "study.yaml") for w in words], capsys=capsys)
    assert code == 2
    assert out == ""
    assert err.startswith("ablate: ") and err.count("\n") == 1
    assert message in err
    assert not (folder / "work" / "models").exists() and not (folder / "data").exists()


def test_status_before_anything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("status", str(folder / "study.yaml"), "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 0 and found["next"] == "prepare" and not found["prepared"]
    assert not (folder / "work").exists()


def test_init_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    code, _, err = call("init", str(tmp_path), capsys=capsys)
    assert code == 2 and "study.yaml" in err
    assert (tmp_path / "study.yaml").read_text() == "mine"


def test_ctrl_c_ends_with_130_and_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(folder: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("ablate.starter.write_starter", interrupted)
    code, out, err = call("init", str(tmp_path), capsys=capsys)
    assert (code, out, err.count("ablate: ")) == (130, "", 1)


TERMINATED = """
import signal, time
import ray
from ablate import cli
from ablate.cluster.session import session
from ablate.resources import Cluster

def job(standalone_mode):
    with session(Cluster(cpus=1)):
        print("up", flush=True)
        time.sleep(60)

cli.app = job
cli.main()
"""


def test_a_polite_kill_is_answered_as_ctrl_c_is() -> None:
    """Also while Ray is there, whose own answer would end the process at once."""
    made = subprocess.Popen(
        [sys.executable, "-c", TERMINATED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "up\n"
    made.terminate()
    _, err = made.communicate(timeout=60)
    assert made.returncode == 143
    assert "ablate: terminated; what was finished is kept" in err and "Traceback" not in err
