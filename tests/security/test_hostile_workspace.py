"""A workspace that someone else has packed: nothing outside it is read, written or removed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.errors import UserError, WorkspaceError
from ablate.status import clean, garbage, status
from ablate.study import Study
from ablate.workspace import Workspace, read_json, write_json
from tests.security.memory import peak_of
from tests.security.test_harmless import TREE

PRECIOUS = "not to be touched"
NAMES = (
    "models", "corpus", "likelihoods", "statistics", "logs", "pool.json", "trials.jsonl",
    "agreement.json", "report.html", "trials.parquet", "study.yaml", ".lock", "corpus/corpus.json",
    "corpus/part", "corpus/part/train.arrow", "models/seed-0", "models/.resume-x",
    "models/seed-0/config.json", "logs/seed.jsonl", "likelihoods/0/0.safetensors", "tracking",
    "tracking/mlflow", "tracking/mlflow/mlflow.db", "tracking/wandb/wandb/debug.log",
)  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text(PRECIOUS)
    (folder / ".tmp-file").write_text(PRECIOUS)
    (folder / "inner" / "train.arrow").write_text(PRECIOUS)
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "work").mkdir()
    return Study.model_validate({**TREE, "workspace": str(tmp_path / "work")})


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "none")


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path, outside: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plant", [link, dangling, pipe, bound_socket, device])
def test_what_is_no_plain_file_or_folder_is_refused_by_name(
    study: Study, outside: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    path = Path(study.workspace) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    plant(path, outside)
    before = sorted(outside.rglob("*"))
    for verb in (status, garbage, clean):
        with pytest.raises(WorkspaceError, match=path.name) as raised:
            verb(study)
        assert "plain files" in str(raised.value)
    assert sorted(outside.rglob("*")) == before
    assert (outside / "file").read_text() == PRECIOUS


@pytest.mark.parametrize(
    "name", ["trials.jsonl", "corpus/law/train.arrow", "models/seed-1/config.json", "logs/x.jsonl"]
)
def test_a_folder_where_a_file_belongs_is_refused_by_name_and_kept(study: Study, name: str) -> None:
    path = Path(study.workspace) / name
    (path / "inside").mkdir(parents=True)
    for verb in (status, clean):
        with pytest.raises(WorkspaceError, match=f"a folder where a file belongs at .*{name}"):
            verb(study)
    assert (path / "inside").is_dir()


def test_partitions_and_trackers_may_have_folders_of_any_name(study: Study) -> None:
    for name in ("corpus/law.json", "tracking/mlflow/a.json"):
        (Path(study.workspace) / name).mkdir(parents=True)
    assert status(study)


@pytest.mark.parametrize(
    "name", [".lock", "trials.jsonl", "logs/train.jsonl", "tracking/mlflow/mlflow.db"]
)
def test_a_file_written_in_place_may_have_no_second_name(
    study: Study, outside: Path, name: str
) -> None:
    path = Path(study.workspace) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(outside / "file")
    with pytest.raises(WorkspaceError, match="second name"):
        status(study)
    assert (outside / "file").read_text() == PRECIOUS


def test_the_lock_is_not_written_through_a_link(study: Study, outside: Path) -> None:
    workspace = study.open_workspace()
    (workspace.root / ".lock").symlink_to(outside / "file")
    with pytest.raises(UserError), workspace.lock():
        pass
    assert (outside / "file").read_text() == PRECIOUS


def test_the_workspace_itself_may_be_a_link_and_other_files_are_none_of_ours(
    tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "data").symlink_to(outside)
    (tmp_path / "work").symlink_to(tmp_path / "real")
    workspace = Workspace.open(str(tmp_path / "work"))
    with workspace.lock():
        write_json(workspace.pool_json, {"a": 1})
    assert read_json(workspace.pool_json) == {"schema_version": 1, "a": 1}


STATE = {
    "a list": b"[]", "a number": b"1", "nothing": b"", "not UTF-8": b"\xff\xfe{}",
    "NaN": b'{"schema_version": NaN}', "infinity": b'{"schema_version": Infinity}',
    "true": b'{"schema_version": true}', "half": b'{"schema_version": 1, "a": "\\ud8',
    "huge int": b'{"schema_version": ' + b"9" * 5000 + b"}",
    "huge version": b'{"schema_version": "' + b"9" * 1_000_000 + b'"}',
    "nested": b'{"schema_version": 1, "seal": "", "a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "deeply nested": b'{"schema_version": 1, "a": ' + b'{"a":' * 200_000,
    "twice": b'{"schema_version": 1, "schema_version": 2}',
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os.",
    "wrong seal": b'{"schema_version": 1, "seal": ["x"]}',
}  # fmt: skip


@pytest.mark.parametrize("data", STATE.values(), ids=STATE.keys())
def test_any_other_state_file_is_one_short_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "pool.json").write_bytes(data)
    with pytest.raises(WorkspaceError, match=r"pool\.json") as raised:
        read_json(tmp_path / "pool.json")
    assert len(str(raised.value)) < 5000


def test_a_state_file_is_not_waited_for_and_its_size_is_bounded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(50 << 30)  # a sparse file
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "large", "zero"):
        with pytest.raises(WorkspaceError):
            read_json(tmp_path / name)


READ = """
import sys
from pathlib import Path
from ablate.workspace import read_json
from ablate.errors import WorkspaceError
try:
    read_json(Path(sys.argv[1]))
except WorkspaceError as error:
    print(str(error)[:60])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize(("size", "most"), [(60_000_000, 1600), (1_000_000_000, 250)])
def test_memory_is_bounded_for_the_worst_json(tmp_path: Path, size: int, most: int) -> None:
    with (tmp_path / "pool.json").open("wb") as stream:
        stream.write(b"[" + b"[]," * (min(size, 60_000_000) // 3) + b"0]")
        stream.truncate(size)
    line, peak = peak_of(READ, tmp_path / "pool.json")
    print(f"{size:,} bytes of JSON: {line}: peak {peak:.0f} MB")
    assert line.startswith("state files must") and peak < most


def test_a_sealed_file_must_fit_its_seal(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    body = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**body, "x": 2}))
    with pytest.raises(WorkspaceError, match="seal"):
        read_json(tmp_path / "a.json")
