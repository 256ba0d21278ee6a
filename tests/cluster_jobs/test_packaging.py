"""What is sent: the same study, the same files, and nothing else. No Ray is needed."""

from __future__ import annotations

import json
import secrets
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablate import packaging
from ablate.corpus import prepare
from ablate.errors import StudyError
from ablate.packaging import pinned_requirements, workspace_mark, write_package
from ablate.resources import Cluster, load_cluster
from ablate.study import Study, load_study
from ablate.train.stages import seed_job, unit_jobs

STUDY = """
name: packed
workspace: work
corpus:
  sources:
    - {path: folder, partition: a}
    - {path: "lines/*.txt", partition: b}
  unit_tokens: 40
  heldout: {documents: 0.2}
tokenizer: {train: {vocab_size: 300}}
model: {preset: tiny}
seed: {sources: [{path: "lines/*.txt"}], tokens: 64}
train: {sequence_length: 8, batch_tokens: 16}
evaluate: {domains: {c: c.txt, d: some/hub-id}, tokens_per_domain: 50}
"""


def serial(
    function: Callable[[Any, Any], Any], items: Sequence[Any], shared: Any, label: str
) -> list[Any]:
    return [function(item, shared) for item in items]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folder = tmp_path / "mine"
    (folder / "folder" / "deep").mkdir(parents=True)
    (folder / "lines").mkdir()
    for part, name in enumerate(("one.jsonl", "deep/two.jsonl")):
        rows = [json.dumps({"text": f"number {i} in part {part} of a"}) for i in range(40)]
        (folder / "folder" / name).write_text("\n".join(rows) + "\n")
    for name in ("p", "q"):
        text = "".join(f"a line of {name}, the {i}th\n" for i in range(40))
        (folder / "lines" / f"{name}.txt").write_text(text)
    (folder / "c.txt").write_text("something else, quite different\n" * 3 + "and more\n")
    (folder / "study.yaml").write_text(STUDY)
    return load_study(folder / "study.yaml")


def unpacked(study: Study, folder: Path, *, with_files: bool = False) -> Path:
    folder.mkdir()
    file = folder / "package.zip"
    package = write_package(file, study, Cluster(), with_files=with_files)
    assert package.bytes == file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def test_without_files_the_study_is_the_same(study: Study, tmp_path: Path) -> None:
    folder = unpacked(study, tmp_path / "there")
    sent = load_study(folder / "study.yaml")
    assert sent == study
    assert workspace_mark(sent) == workspace_mark(study)
    assert not (folder / "files").exists()
    assert (folder / "ablate" / "cli.py").is_file() and (folder / "ablate" / "py.typed").is_file()
    assert not list(folder.rglob("__pycache__"))


def test_the_cluster_file_joins_the_cluster_that_it_runs_in(study: Study, tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 2}}')
    (tmp_path / "cluster.yaml").write_text("{address: 'x:6379', deepspeed: zero.json}")
    mine = load_cluster(tmp_path / "cluster.yaml")
    write_package(tmp_path / "p.zip", study, mine, with_files=False)
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extract("cluster.yaml", tmp_path / "there")
    sent = load_cluster(tmp_path / "there" / "cluster.yaml")
    assert sent == mine.model_copy(update={"address": "auto"})
    assert sent.deepspeed == {"zero_optimization": {"stage": 2}}


def test_sent_files_make_the_same_models(study: Study, tmp_path: Path) -> None:
    folder = unpacked(study, tmp_path / "there", with_files=True)
    sent = load_study(folder / "study.yaml")
    a, b = (source.path for source in sent.corpus.sources)
    c, hub = (domain.path for domain in sent.evaluate.domains.values())
    assert sent.seed.sources[0].path == b
    assert (hub, sent.workspace) == ("some/hub-id", study.workspace)
    names = {str(path) for path in folder.glob("files/**/*.*")}
    places = [f"{a}/one.jsonl", f"{a}/deep/two.jsonl", c]
    assert b.endswith("/*.txt")
    assert names == {*places, *(b.replace("*", name) for name in "pq")}
    marks = []
    for one, place in ((study, "here"), (sent, "there-too")):
        local = one.evaluate.model_copy(update={"domains": {"c": one.evaluate.domains["c"]}})
        one = one.model_copy(update={"workspace": str(tmp_path / place), "evaluate": local})
        workspace = one.open_workspace()
        corpus = prepare(one, workspace, serial)
        seed = seed_job(one, corpus, workspace)
        assert seed is not None
        jobs = unit_jobs(one, corpus, workspace, seed.fingerprint, seed.path)
        marks.append([corpus.fingerprint, seed.fingerprint, *(job.fingerprint for job in jobs)])
    assert marks[0] == marks[1] and len(marks[0]) > 4


def test_model_and_tokenizer_folders_go_along_without_pickles(study: Study, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "m.py"):
        (model / name).write_text(name)
    settings = study.model.model_copy(update={"path": str(model), "preset": None})
    tokenizer = study.tokenizer.model_copy(update={"path": str(model), "train": None})
    asked = study.model_copy(update={"model": settings, "tokenizer": tokenizer})
    folder = unpacked(asked, tmp_path / "there", with_files=True)
    sent = load_study(folder / "study.yaml")
    assert sent.model.path == sent.tokenizer.path and sent.model.path is not None
    names = sorted(path.name for path in Path(sent.model.path).iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]


def test_the_same_study_is_the_same_package(study: Study, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_package(tmp_path / name, study, Cluster(), with_files=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_too_much_is_refused_before_anything_is_sent(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "p.zip", study, Cluster(), with_files=False)
    size = (tmp_path / "p.zip").stat().st_size
    (tmp_path / "mine" / "lines" / "r.txt").write_text(secrets.token_hex(100_000))
    monkeypatch.setattr(packaging, "LIMIT_BYTES", size)
    with pytest.raises(StudyError, match=r"at most 0 MiB.*leave --with-files out") as caught:
        write_package(tmp_path / "p.zip", study, Cluster(), with_files=True)
    assert "\n" not in str(caught.value)


def test_nothing_of_the_environment_is_sent(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"secret-of-{name}")
    (tmp_path / "mine" / ".env").write_text("secret-of-RAY_AUTH_TOKEN")
    folder = unpacked(study, tmp_path / "there", with_files=True)
    for path in folder.rglob("*"):
        assert path.is_dir() or b"secret-of" not in path.read_bytes()


def test_requirements_are_pinned_and_leave_ray_out() -> None:
    pins = pinned_requirements()
    names = {pin.partition("==")[0] for pin in pins}
    assert {"torch", "transformers", "deepspeed", "pydantic"} <= names
    assert not names & {"ray", "pytest", "mypy", "ruff"}
    assert all(pin.partition("==")[2] and "+" not in pin for pin in pins)
