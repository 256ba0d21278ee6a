"""Mirrors: two machines see one workspace through a store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.stores import mirror
from ablate.stores.objects import Objects
from ablate.workspace import Workspace, publish_folder, remove, temporary_folder, write_atomic


class Machine:
    """The mirrors of one machine, in a folder of its own; `use` makes it this process's."""

    def __init__(self, top: Path, patch: pytest.MonkeyPatch) -> None:
        self.top, self._patch = top, patch

    def use(self, *, drives: str | None = None) -> Path | None:
        """Be a process of this machine: a driver of `drives`, or a worker."""
        self._patch.setenv("ABLATE_MIRRORS", str(self.top))
        self._patch.setattr(mirror, "_listings", {})
        return None if drives is None else mirror.open_mirror(drives)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    return Machine(tmp_path / "one", monkeypatch), Machine(tmp_path / "two", monkeypatch)


def test_plain_paths_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert mirror.here(file) == mirror.fetched(file) == mirror.kept(file) == file
    mirror.forget(file)
    assert file.exists() and not mirror.is_mirrored(file)
    assert not mirror.is_vouched(file, file) and mirror.stored_bytes(tmp_path) is None
    assert mirror.named(f"see {file}") == f"see {file}"


def test_a_path_of_the_drivers_is_another_on_a_node(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    root = one.use(drives="s3://bucket/a b?region=x")
    assert root is not None and mirror.here(root / "pool.json") == root / "pool.json"
    two.use()
    there = mirror.here(str(root / "models/seed-1"))
    assert there.is_relative_to(two.top) and str(there).endswith("/models/seed-1")
    assert mirror.here(there) == there and mirror.location(root) == "s3://bucket/a b?region=x"
    assert (
        mirror.named(f"'{there}/x' is bad") == "'s3://bucket/a b?region=x/models/seed-1/x' is bad"
    )


def test_a_folder_others_may_write_holds_no_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("ABLATE_MIRRORS", str(tmp_path / "open"))
    with pytest.raises(Exception, match="only you can write"):
        mirror.open_mirror("s3://bucket/x")


def test_what_one_machine_keeps_another_fetches(
    uri: str, machines: tuple[Machine, Machine]
) -> None:
    one, two = machines
    root = one.use(drives=uri)
    assert root is not None
    write_atomic(root / "models/a/config.json", b"old")
    write_atomic(root / "models/a/gone.json", b"gone")
    two.use()
    there = mirror.fetched(root / "models/a")
    assert {p.name: p.read_bytes() for p in there.iterdir()} == {
        "config.json": b"old",
        "gone.json": b"gone",
    }
    one.use(drives=uri)
    write_atomic(root / "models/a/config.json", b"newer")
    remove(root / "models/a/gone.json")
    two.use()
    assert mirror.fetched(root / "models/a/config.json").read_bytes() == b"newer"
    (there / "config.json").write_bytes(b"spoil")  # of the same size
    assert [p.read_bytes() for p in mirror.fetched(root / "models/a").iterdir()] == [b"newer"]
    one.use(drives=uri)
    remove(root / "models/a")
    two.use()
    assert not mirror.fetched(root / "models/a").exists()


def test_a_current_file_is_not_fetched_again(uri: str, machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    root = one.use(drives=uri)
    assert root is not None
    write_atomic(root / "models/a/model.safetensors", b"weights")
    two.use()
    there = mirror.fetched(root / "models/a/model.safetensors")
    before = there.stat().st_ino
    assert mirror.fetched(root / "models/a/model.safetensors").stat().st_ino == before


def test_a_folder_is_complete_when_its_last_file_is_there(
    uri: str, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machines[0].use(drives=uri)
    assert root is not None
    order: list[str] = []
    upload = Objects.upload

    def noted(self: Objects, file: Path, name: str) -> object:
        order.append(name)
        return upload(self, file, name)

    monkeypatch.setattr(Objects, "upload", noted)
    with temporary_folder(root / "models") as folder:
        for name in ("training.json", "a.json", "z.json"):
            write_atomic(folder / name, b"{}")
        assert order == []
        publish_folder(folder, root / "models/unit", last="training.json")
    assert order[-1] == "models/unit/training.json" and len(order) == 3
    record = root / "models/unit/training.json"
    assert mirror.is_vouched(root / "models/unit/a.json", record)
    assert not mirror.is_vouched(root / "models/unit/none.json", record)


def test_what_is_younger_than_its_record_is_not_vouched_for(
    uri: str, machines: tuple[Machine, Machine]
) -> None:
    root = machines[0].use(drives=uri)
    assert root is not None
    write_atomic(root / "models/unit/training.json", b"{}")
    second = Objects(uri).find()["models/unit/training.json"].second
    while Objects(uri).write("models/unit/model.safetensors", b"altered").second <= second:
        pass
    mirror.pull(root, alone=True)
    weights, record = root / "models/unit/model.safetensors", root / "models/unit/training.json"
    assert not mirror.is_vouched(weights, record) and mirror.is_vouched(record, record)


def test_another_machine_has_the_state_and_not_the_weights(
    uri: str, machines: tuple[Machine, Machine]
) -> None:
    one, two = machines
    root = one.use(drives=uri)
    assert root is not None
    large = ("models/u/model.safetensors", "corpus/p/train.arrow", "likelihoods/u/d.safetensors")
    state = ("pool.json", "models/u/training.json", "corpus/@tokenizer/tokenizer.json")
    for name in (*large, *state):
        write_atomic(root / name, name.encode())
    fresh = two.use(drives=uri)
    assert fresh is not None
    (fresh / "models/left").mkdir(parents=True)
    (fresh / "models/left/training.json").write_text("of no store")
    found = Workspace.open(uri).refresh()
    assert found.root == fresh and found.location == uri
    there = sorted(str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file())
    assert [name for name in there if not name.startswith(".")] == sorted(state)
    assert mirror.entries(fresh / "models") == {fresh / "models/u": None}
    assert mirror.stored_bytes(fresh / "models/u") == sum(
        len(name) for name in (*large, *state) if name.startswith("models/u/")
    )


@pytest.mark.parametrize(
    ("here", "there", "read"),
    [
        (b"1\n2\n3\n", b"1\n2\n", b"1\n2\n3\n"),  # what a killed driver did not write
        (b"1\n", b"1\n2\n", b"1\n2\n"),
        (b"1\nX\n3\n", b"1\n2\n", b"1\n2\n"),
        (b"1\n", None, None),
    ],
)
def test_the_journal_is_the_stores_or_goes_on_from_it(
    here: bytes,
    there: bytes | None,
    read: bytes | None,
    uri: str,
    machines: tuple[Machine, Machine],
) -> None:
    root = machines[0].use(drives=uri)
    assert root is not None
    root.mkdir(parents=True)
    (root / "trials.jsonl").write_bytes(here)
    if there is not None:
        Objects(uri).write("trials.jsonl", there)
    mirror.pull(root, alone=True)
    file = root / "trials.jsonl"
    assert (file.read_bytes() if file.exists() else None) == read


def test_import_ablate_does_not_load_pyarrow() -> None:
    code = "import sys, ablate.workspace; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


@pytest.mark.parametrize("how", ["written", "published", "removed"])
def test_who_looks_on_puts_no_old_file_back(
    how: str, uri: str, machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machines[0].use(drives=uri)
    assert root is not None
    file = root / "models/a/training.json"
    looks: list[threading.Thread] = []

    def looked_at(act: Callable[..., object]) -> Callable[..., object]:
        """Let another one bring the mirror up to date before the store knows what is done."""

        def acted(*given: object) -> object:
            looks.append(threading.Thread(target=lambda: Workspace.open(uri).refresh()))
            looks[-1].start()
            looks[-1].join(1)
            return act(*given)

        return acted

    with Workspace.open(uri).lock():
        write_atomic(file, b"old")
        monkeypatch.setattr(Objects, "upload", looked_at(Objects.upload))
        monkeypatch.setattr(Objects, "delete", looked_at(Objects.delete))
        if how == "written":
            write_atomic(file, b"new")
        elif how == "published":
            with temporary_folder(root / "models") as folder:
                write_atomic(folder / "training.json", b"new")
                publish_folder(folder, root / "models/a", last="training.json")
        else:
            remove(root / "models/a")
        for look in looks:
            look.join()
        assert (file.read_bytes() if file.exists() else None) == (
            None if how == "removed" else b"new"
        )
    assert Objects(uri).read("models/a/training.json") == (None if how == "removed" else b"new")
