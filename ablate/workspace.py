"""The workspace: the only state. Every file is written to a temporary name, then renamed.

On an object store it is used through mirrors (`stores/`): what is written here is kept there too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.errors import StudyError, WorkspaceError
from ablate.stores import JOURNAL, TEMPORARY_PREFIX, driving, mirror, take_lock

SCHEMA_VERSION = 1
FINGERPRINT_DIGITS = 12
SLUG_LENGTH = 48
LOCK = ".lock"
MAX_STATE_BYTES = 64 << 20
OWN_FOLDERS = ("corpus", "models", "likelihoods", "statistics", "logs", "tracking")
OWN_FILES = (
    LOCK, JOURNAL, "study.yaml", "pool.json", "trials.parquet", "agreement.json", "report.html",
)  # fmt: skip
FILE_SUFFIXES = (".arrow", ".html", ".json", ".jsonl", ".parquet", ".safetensors", ".yaml")
WRITTEN_IN_PLACE = (LOCK, JOURNAL, "logs", "tracking")


def fingerprint(value: Any) -> str:
    """Return the first 12 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def file_digest(path: Path, chunk: int = 1 << 20) -> str:
    """Return the SHA-256 (hex) of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(chunk):
            digest.update(piece)
    return digest.hexdigest()


def read_small(path: Path, most: int) -> bytes:
    """Return the bytes of a plain file of at most `most` bytes.

    A pipe or device is not waited for. Raises OSError when it cannot be opened, ValueError when it
    is no plain file or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no plain file")
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise ValueError(f"it has more than {most >> 20} MiB")
    return data


def strange_file(folder: Path) -> Path | None:
    """Return what in a folder is a pipe, socket or device, also behind a link; None for nothing.

    Libraries that read a folder by themselves would wait for it, or read without end.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            return path
    return None


def lines_of(path: Path, most: int) -> Iterator[bytes]:
    """Yield the lines of a plain file; of one that is longer than `most` bytes, its beginning."""
    with path.open("rb") as stream:
        while line := stream.readline(most):
            yield line
            while len(line) == most and not line.endswith(b"\n"):
                line = stream.readline(most)


def slug(name: str) -> str:
    """Return a file-safe form of `name`: letters, digits, `_`, `-`; a hash where it was changed."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")
    if safe == name and len(safe) <= SLUG_LENGTH:
        return safe
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{safe[: SLUG_LENGTH - 9]}-{mark}".lstrip("-")


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one."""
    path = mirror.here(path)
    _make_folder(path.parent)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}"
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if any(part.startswith(TEMPORARY_PREFIX) for part in path.parts):
            temporary.replace(path)
            return
        with mirror.settled(path):
            temporary.replace(path)
            mirror.kept(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as in /proc: it looks like a folder and holds none
        raise StudyError(
            f"a folder must be made for what is written, got none at {folder.parent}; name another "
            "place"
        ) from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a state file: `value` with its schema version and a seal, atomically.

    The seal is the fingerprint of all the rest: `read_json` refuses a file that was altered.
    """
    body = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **value}))
    body["seal"] = fingerprint(body)
    data = (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode()
    if len(data) > MAX_STATE_BYTES:
        raise WorkspaceError(
            f"state files must have at most {MAX_STATE_BYTES >> 20} MiB, got {len(data):,} bytes for "
            f"{path}; use fewer partitions, units or source files"
        )
    write_atomic(path, data)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a state file's object without its seal, or None when there is no such file.

    Raises WorkspaceError when it is not a JSON object of this schema version, does not fit its
    seal, is larger than 64 MiB, or is no plain file.
    """
    try:
        value = json.loads(read_small(path, MAX_STATE_BYTES))
        seal = value.pop("seal", None) if isinstance(value, dict) else None
        mark = None if seal is None else fingerprint(value)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"state files must be JSON: {path} is altered or cut short ({error}); delete it to "
            "have it made again"
        ) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise WorkspaceError(
            f"state files must have schema_version {SCHEMA_VERSION}: {path} has another or none; "
            "use the version of ablate that wrote it, or delete it to have it made again"
        )
    if seal != mark:
        raise WorkspaceError(
            f"state files must be as they were written: {path} does not fit its seal; delete it "
            "to have it made again"
        )
    found: dict[str, Any] = value
    return found


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder under `parent` that is removed at the end unless it was renamed away."""
    folder = parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
    _make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(temporary: Path, final: Path, *, last: str | None = None) -> None:
    """Rename a finished temporary folder to its final name, replacing what was there.

    On an object store, where nothing is renamed, its file named `last` says that it is complete.
    """
    with mirror.settled(final):
        mirror.forget(final)
        if final.exists():
            old = final.parent / f"{TEMPORARY_PREFIX}old-{secrets.token_hex(6)}"
            final.replace(old)
            temporary.replace(final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(final)
    mirror.kept(final, last=last)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    with mirror.settled(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        mirror.forget(path)


class Workspace:
    """Paths of one study's state below `root`: a folder, or this machine's mirror of `location`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = mirror.location(root)
        self.study = root / "study.yaml"
        self.corpus = root / "corpus"
        self.corpus_json = self.corpus / "corpus.json"
        self.tokenizer = self.corpus / "@tokenizer"
        self.models = root / "models"
        self.pool_json = root / "pool.json"
        self.journal = root / JOURNAL
        self.table = root / "trials.parquet"
        self.agreement = root / "agreement.json"
        self.report = root / "report.html"
        self.logs = root / "logs"
        self.tracking = root / "tracking"

    @classmethod
    def open(cls, location: str) -> Workspace:
        """Return the workspace at a folder, a `file://` URI or one that pyarrow.fs knows.

        No state is made or fetched. Raises StudyError where there cannot be one, WorkspaceError for one
        that holds anything but plain files and folders.
        """
        if location.startswith("file://"):
            location = location.removeprefix("file://")
        elif "://" in location:
            return cls(mirror.open_mirror(location))
        root = Path(location)
        existing = next(path for path in (root, *root.parents) if path.exists())
        if not existing.is_dir():
            raise StudyError(
                f"workspace must be a folder, got {location}: {existing} is none; name another one"
            )
        _require_plain(root)
        return cls(root)

    def seed_folder(self, mark: str) -> Path:
        """Return the folder of the seed model with fingerprint `mark`."""
        return self.models / f"seed-{mark}"

    def unit_folder(self, partition: str, index: int, mark: str) -> Path:
        """Return the folder of one unit model with fingerprint `mark`."""
        return self.models / f"unit-{slug(partition)}-{index}-{mark}"

    def resume_folder(self, name: str) -> Path:
        """Return the folder of a training run's resume state; it never matches a model's name."""
        return self.models / f".resume-{name}"

    def refresh(self) -> Workspace:
        """Return the workspace after its state was brought up to date with its store, if any."""
        if mirror.is_mirrored(self.root):
            with mirror.settled(self.root):
                mirror.pull(self.root, alone=_is_free(self.root))
        return self

    def lock(self) -> Any:
        """Return a context manager that holds the workspace for one driver.

        Raises WorkspaceError at entry when another driver holds it.
        """
        return _lock(self.root)


def _require_plain(root: Path) -> None:
    """Refuse links, pipes and devices among a workspace's own files, wherever they lead.

    What is written or removed there would be written or removed elsewhere. Other files in the same
    folder are none of ours.
    """
    waiting = [entry for entry in _entries(root) if entry.name in (*OWN_FOLDERS, *OWN_FILES)]
    while waiting:
        entry = waiting.pop()
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if _names_a_file(path.relative_to(root)):
                raise _not_plain(path, "a folder where a file belongs")
            waiting += _entries(path)
        elif entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            what = "a link" if entry.is_symlink() else "a pipe, socket or device"
            raise _not_plain(path, what)
        elif path.relative_to(root).parts[0] in WRITTEN_IN_PLACE and _has_second_name(path):
            raise _not_plain(path, "a file with a second name (a hard link)")


def _names_a_file(path: Path) -> bool:
    """Return whether a path below the workspace is that of a file; partitions name folders."""
    first, *rest = path.parts
    if not rest:
        return first in OWN_FILES
    partition = first == "corpus" and len(rest) == 1
    return path.suffix in FILE_SUFFIXES and not partition and first != "tracking"


def _has_second_name(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # gone: another process is at work
        return path.stat(follow_symlinks=False).st_nlink > 1
    return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder; nothing when it is gone, as another process may have moved it."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _not_plain(path: Path, what: str) -> WorkspaceError:
    return WorkspaceError(
        f"a workspace must hold plain files and folders, got {what} at {path}; remove it, or put "
        "a copy in its place (the whole workspace may lie behind a link or be a mount)"
    )


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    with _held(root), driving(root):
        yield


def _is_free(root: Path) -> bool:
    """Return whether no driver of this machine, this process included, is at work in a mirror."""
    with (root / LOCK).open("a+") as stream:
        return take_lock(stream, root / LOCK, wait=False)


@contextmanager
def _held(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Never through a link, and never waiting for a pipe.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        stream = os.fdopen(os.open(root / LOCK, flags, 0o666), "r+")
    except OSError as error:
        raise StudyError(
            f"workspace must be a folder that can be written, got {root}: {error.strerror}; name "
            "another one"
        ) from error
    with stream:
        with mirror.settled(root):
            free = take_lock(stream, root / LOCK, wait=False)
        stream.seek(0)
        if not free:
            raise WorkspaceError(
                f"a workspace must have one driver at a time: {root} is in use by process "
                f"{stream.read().strip() or 'unknown'}; wait for it, or stop it"
            )
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield
