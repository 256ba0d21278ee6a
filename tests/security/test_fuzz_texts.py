"""Whatever is written into a study, an override, a mixture or a weights file: one line, or a value."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ablate import cli
from ablate.errors import StudyError
from ablate.harmless import visible
from ablate.mixture_text import parse_mixture, read_weights
from ablate.resources import load_cluster
from ablate.study import load_study, to_yaml
from tests.security.fuzzing import COUNTS, changed, examples, mutated_bytes, places, strange_values

TREE: dict[str, Any] = {
    "name": "n",
    "workspace": "work",
    "corpus": {
        "sources": [{"path": "a.jsonl", "partition": "a"}, {"path": "b", "partition_by": ["x", "y"]}],
        "unit_tokens": 100, "heldout": {"documents": 0.1}, "decontaminate": {"ngram": 13},
    },
    "tokenizer": {"train": {"vocab_size": 300}},
    "model": {"preset": "tiny", "overrides": {"hidden_size": 8}},
    "seed": {"sources": [{"path": "s.jsonl"}], "tokens": 64},
    "train": {"sequence_length": 8, "batch_tokens": 16, "betas": [0.9, 0.95], "learning_rate": "3e-4"},
    "evaluate": {"domains": {"c": "c.jsonl", "d": {"path": "d", "split": "test"}}},
    "search": {
        "space": {"kind": "simplex", "bounds": {"a": [0, 1]}, "groups": {"g": ["a*"]}},
        "merge": {"method": "ties", "options": {"density": 0.2}, "alternatives": [{"method": "linear"}]},
        "objectives": {"o": {"mean": ["c"]}}, "racing": {"shares": [0.5]},
    },
    "validate": {"mixtures": 3, "sizes": [1, 2]},
}  # fmt: skip
CLUSTER: dict[str, Any] = {
    "address": None, "cpus": 2, "train": {"workers_per_run": 1}, "trial": {"gpus": 0.25},
    "deepspeed": {"zero_optimization": {"stage": 1}}, "prepare": {"cpus": 1},
}  # fmt: skip
STUDY_TEXT = yaml.safe_dump(TREE).encode()
KNOWN = ["law", "math", "a, b", "x" * 50, 'q"uote']


@pytest.fixture(scope="module", autouse=True)
def _counts(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\nfuzzed:", ", ".join(f"{name} {count:,}" for name, count in COUNTS.items()))
    COUNTS.clear()


def loads(kind: str, file: Path, overrides: list[str] | None = None) -> None:
    """Load a study or cluster file: a value, or one visible line of bounded length."""
    COUNTS[kind] += 1
    try:
        if kind.startswith("cluster"):
            load_cluster(file, overrides or ())
        else:
            study = load_study(file, overrides or ())
            file.write_text(to_yaml(study), encoding="utf-8")
            assert load_study(file) == study
    except StudyError as error:
        line = str(error)
        assert line == visible(line) and "\n" not in line and 0 < len(line) < 5000


@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
)
@examples(60)
def test_any_bytes_as_a_study(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.yaml").write_bytes(data)
    loads("study bytes", tmp_path / "s.yaml")


@given(data=mutated_bytes(STUDY_TEXT))
@examples(60)
def test_a_study_with_bytes_changed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.yaml").write_bytes(data)
    loads("study edits", tmp_path / "s.yaml")


@given(place=st.sampled_from(places(TREE)), value=strange_values())
@examples(150)
def test_a_study_with_a_value_changed(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    text = yaml.safe_dump(changed(TREE, place, value), allow_unicode=True)
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8", errors="replace")
    loads("study values", tmp_path / "s.yaml")


@given(place=st.sampled_from(places(CLUSTER)), value=strange_values())
@examples(80)
def test_a_cluster_file_with_a_value_changed(
    tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    text = yaml.safe_dump(changed(CLUSTER, place, value), allow_unicode=True)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8", errors="replace")
    loads("cluster values", tmp_path / "c.yaml")


@given(
    key=st.sampled_from([".".join(map(str, place)) for place in places(TREE)])
    | st.text(max_size=20),
    value=strange_values().map(lambda v: json.dumps(v, default=str)) | st.text(max_size=30),
)
@examples(120)
def test_overrides(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "s.yaml").write_bytes(STUDY_TEXT)
    loads("overrides", tmp_path / "s.yaml", [f"{key}={value}", value])
    (tmp_path / "s.yaml").write_bytes(STUDY_TEXT)
    loads("overrides", tmp_path / "s.yaml", [f"{key}={value}"])


@given(
    text=st.text(max_size=40) | st.lists(st.sampled_from([*KNOWN, ",", '"', " ", "="])).map("".join)
)
@examples(150)
def test_mixtures(text: str) -> None:
    COUNTS["mixtures"] += 1
    units = dict.fromkeys(KNOWN, 2)
    try:
        found = parse_mixture(text, known=KNOWN, units=units, weighting="macro")
    except StudyError as error:
        assert "\n" not in str(error)
    else:
        assert set(found.partitions) <= set(KNOWN)
        assert abs(sum(weight for _, weight in found.weights) - 1) < 1e-9


@given(
    data=mutated_bytes(b'{"weights": {"law": 0.3, "math": 7e-1}, "tokens": {"law": 1}}')
    | strange_values().map(lambda v: json.dumps(v).encode()),
    suffix=st.sampled_from([".json", ".yaml"]),
)
@examples(120)
def test_files_of_weights(tmp_path: Path, data: bytes, suffix: str) -> None:
    COUNTS["weights"] += 1
    (tmp_path / f"w{suffix}").write_bytes(data)
    try:
        found = read_weights(tmp_path / f"w{suffix}")
    except StudyError as error:
        assert "\n" not in str(error)
    else:
        assert abs(sum(weight for _, weight in found.weights) - 1) < 1e-9


VERBS = (
    "plan",
    "status",
    "clean",
    "schema",
    "export",
    "score",
    "report",
    "init",
    "submit",
    "nonsense",
)
WORDS = (
    "--json", "--cluster", "--mixture", "--to", "--as", "--tokens", "--dry-run", "--help", "--follow",
    "--job", "--cancel", "--address", "--verb", "--python", "best", "best:3", "best:" + "9" * 30,
    "1e400", "nan", "weights", "checkpoint", "s.yaml", "none.yaml", ".", "/dev/null", "/dev/zero", "..",
    "train.rng_seed=1", "a=b=c", "=", "\x1b[2J", "\ud800", "x" * 5000, "-", "--", "",
    "http://user:pw@127.0.0.1:9", "workspace=/proc/x", "corpus.sources=[]", "name=",
)  # fmt: skip


@given(verb=st.sampled_from(VERBS), words=st.lists(st.sampled_from(WORDS), max_size=6))
@examples(60)
def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str]
) -> None:
    """As a user meets it: `cli.main` itself ends with 0 or 2, and no traceback."""
    COUNTS["commands"] += 1
    monkeypatch.chdir(tmp_path)
    tree = {**TREE, "workspace": str(tmp_path / "work")}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(
        "sys.argv", ["ablate", verb, *(["s.yaml"] if verb != "init" else []), *words]
    )
    out, problems = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(problems),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    said = problems.getvalue()
    assert ended.value.code in (0, 2), said
    assert "Traceback" not in said and "\x1b" not in said and ":pw@" not in said
