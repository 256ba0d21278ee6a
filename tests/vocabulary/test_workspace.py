"""State files: what is not as it was written is refused, by name."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from ablate.errors import StudyError, WorkspaceError
from ablate.workspace import Workspace, read_json, temporary_folder, write_atomic, write_json

VALUE = {"steps": 3, "rate": 1e-4, "names": ("é", "b"), "none": None}


def test_a_state_file_is_read_back_without_its_seal(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_json(file, VALUE)
    assert read_json(file) == {"schema_version": 1, **VALUE, "names": ["é", "b"]}
    assert read_json(tmp_path / "none.json") is None
    assert read_json(file / "below.json") is None


def altered(file: Path, how: str) -> None:
    text = file.read_text()
    if how == "value":
        file.write_text(text.replace("3", "4", 1))
    elif how == "removed":
        value = json.loads(text)
        del value["rate"]
        file.write_text(json.dumps(value))
    elif how == "cut":
        file.write_text(text[: len(text) // 2])
    elif how == "nested":
        file.write_text("[" * 100_000)
    else:
        file.unlink()
        file.mkdir()


@pytest.mark.parametrize("how", ["value", "removed", "cut", "nested", "folder"])
def test_an_altered_state_file_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    file = tmp_path / "state.json"
    write_json(file, VALUE)
    altered(file, how)
    with pytest.raises(WorkspaceError, match=r"state\.json") as raised:
        read_json(file)
    assert "\n" not in str(raised.value) and "delete it" in str(raised.value)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that takes no folder")
def test_a_place_that_takes_no_folder_is_one_line() -> None:
    with pytest.raises(StudyError, match="name another place"):
        write_atomic(Path("/proc/none/file"), b"x")
    with pytest.raises(StudyError, match="name another place"), temporary_folder(Path("/proc/x")):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StudyError, match="-o flock") as raised, Workspace(tmp_path).lock():
        pass
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_second_driver_is_told_who_holds_the_workspace(tmp_path: Path) -> None:
    held = pytest.raises(WorkspaceError, match=f"in use by process {os.getpid()};")
    with Workspace(tmp_path).lock(), held, Workspace(tmp_path).lock():
        pass
    with Workspace(tmp_path).lock():
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
