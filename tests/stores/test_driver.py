"""One driver at a time, on machines that share nothing but the store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ablate.errors import RunError, WorkspaceError
from ablate.stores import driver as drive
from ablate.stores import mirror
from ablate.stores.driver import driving
from ablate.stores.objects import Objects
from ablate.workspace import Workspace, write_atomic


def root_on(machine: Path, uri: str, patch: pytest.MonkeyPatch) -> Path:
    """Return the mirror of a machine; this process is that machine from now on."""
    patch.setenv("ABLATE_MIRRORS", str(machine))
    return mirror.open_mirror(uri)


def leases(uri: str) -> list[str]:
    return list(Objects(uri).find(".drivers"))


def test_a_second_driver_is_refused_by_name(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = root_on(tmp_path / "one", uri, monkeypatch)
    with driving(one):
        assert len(leases(uri)) == 1
        two = root_on(tmp_path / "two", uri, monkeypatch)
        with pytest.raises(WorkspaceError) as refused, driving(two):
            pass
        told = str(refused.value)
        assert f"{uri} is in use by process {os.getpid()}" in told and "free in" in told
        assert len(leases(uri)) == 1
    assert leases(uri) == []
    with driving(two):
        pass


def test_two_on_one_machine_are_told_at_once(uri: str) -> None:
    workspace = Workspace.open(uri)
    refused = pytest.raises(WorkspaceError, match="in use by process")
    with workspace.lock(), refused, workspace.lock():
        pass


def test_a_dead_driver_is_taken_over_when_its_lease_ran_out(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "LEASE_SECONDS", 3)
    one = root_on(tmp_path / "one", uri, monkeypatch)
    dead = drive._Lease(Objects(uri), mirror.machine_mark(one))
    dead.take()
    two = root_on(tmp_path / "two", uri, monkeypatch)
    with pytest.raises(WorkspaceError), driving(two):
        pass
    time.sleep(5)
    with driving(two):
        assert len(leases(uri)) == 1
        with pytest.raises(WorkspaceError, match="was taken over"):
            dead.renew()


def test_a_driver_that_lets_go_while_another_one_looks_is_none(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = drive._Lease(Objects(uri), mirror.machine_mark(root_on(tmp_path / "1", uri, monkeypatch)))
    one.take()
    read = Objects.read

    def late(self: Objects, name: str) -> bytes | None:
        if name.startswith(".drivers"):
            one.release()
        return read(self, name)

    monkeypatch.setattr(Objects, "read", late)
    with driving(root_on(tmp_path / "two", uri, monkeypatch)):
        assert len(leases(uri)) == 1


def test_a_dead_driver_of_this_machine_is_taken_over_at_once(uri: str) -> None:
    workspace = Workspace.open(uri)
    drive._Lease(Objects(uri), mirror.machine_mark(workspace.root)).take()
    with workspace.lock():
        assert len(leases(uri)) == 1


def test_a_living_driver_renews_its_lease(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "LEASE_SECONDS", 5)
    monkeypatch.setattr(drive, "RENEW_SECONDS", 1.0)
    with driving(root_on(tmp_path / "one", uri, monkeypatch)):
        time.sleep(8)
        two = root_on(tmp_path / "two", uri, monkeypatch)
        with pytest.raises(WorkspaceError), driving(two):
            pass


def test_a_driver_that_lost_its_lease_writes_no_more(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "RENEW_SECONDS", 1.0)
    root = root_on(tmp_path / "one", uri, monkeypatch)
    with pytest.raises(WorkspaceError, match="was taken over"), driving(root):
        Objects(uri).delete(leases(uri)[0])
        time.sleep(4)
        write_atomic(root / "pool.json", b"{}")
    assert Objects(uri).read("pool.json") is None


def test_the_journal_is_in_the_store_while_it_grows_and_whole_at_the_end(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "JOURNAL_SECONDS", 0.5)
    root = root_on(tmp_path / "one", uri, monkeypatch)
    objects = Objects(uri)
    with driving(root):
        (root / "trials.jsonl").write_bytes(b"1\n2\n3")
        end = time.monotonic() + 20
        while objects.read("trials.jsonl") != b"1\n2\n" and time.monotonic() < end:
            time.sleep(0.1)
        assert objects.read("trials.jsonl") == b"1\n2\n"
        with (root / "trials.jsonl").open("ab") as stream:
            stream.write(b"\n")
    assert objects.read("trials.jsonl") == b"1\n2\n3\n"


def test_temporary_objects_of_killed_runs_are_swept_by_the_next_driver(uri: str) -> None:
    objects = Objects(uri)
    for name in ("corpus/.tmp-1/part-0/0.tokens", "corpus/.tmp-2/x", "corpus/p/train.arrow"):
        objects.write(name, b"x")
    Workspace.open(uri).refresh()
    assert len(objects.find("corpus")) == 3
    with Workspace.open(uri).lock():
        assert list(objects.find("corpus")) == ["corpus/p/train.arrow"]


def test_a_store_that_fails_stops_the_journal(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = root_on(tmp_path / "one", uri, monkeypatch)

    def broken(self: Objects, name: str, data: bytes) -> None:
        raise RunError("the store of the workspace must answer, got none")

    with pytest.raises(RunError, match="must answer"), driving(root):
        monkeypatch.setattr(Objects, "write", broken)
        (root / "trials.jsonl").write_bytes(b"1\n")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            mirror.may_write(root / "trials.jsonl")
            time.sleep(0.1)
