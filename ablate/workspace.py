"""The workspace: the only state. Every file is written to a temporary name, then renamed.

On an object store it is used through mirrors (`stores/`): what is written here is kept there too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ablate.errors import StudyError, WorkspaceError
from ablate.stores import TEMPORARY_PREFIX, driving, mirror

SCHEMA_VERSION = 1
FINGERPRINT_DIGITS = 12
SLUG_LENGTH = 48
LOCK = ".lock"


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
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if not any(part.startswith(TEMPORARY_PREFIX) for part in path.parts):
        mirror.kept(path)


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
    write_atomic(path, (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a state file's object without its seal, or None when there is no such file.

    Raises WorkspaceError when it is not a JSON object of this schema version, or does not fit its
    seal.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise WorkspaceError(
            f"state files must be JSON: {path} is altered or cut short ({error}); delete it to "
            "have it made again"
        ) from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(value, dict) or version != SCHEMA_VERSION:
        raise WorkspaceError(
            f"state files must have schema_version {SCHEMA_VERSION}: {path} has {version!r}; "
            "use the version of ablate that wrote it, or delete it to have it made again"
        )
    seal = value.pop("seal", None)
    if seal is not None and seal != fingerprint(value):
        raise WorkspaceError(
            f"state files must be as they were written: {path} does not fit its seal; delete it "
            "to have it made again"
        )
    return value


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
        self.journal = root / "trials.jsonl"
        self.table = root / "trials.parquet"
        self.agreement = root / "agreement.json"
        self.report = root / "report.html"
        self.logs = root / "logs"

    @classmethod
    def open(cls, location: str) -> Workspace:
        """Return the workspace at a folder, a `file://` URI or one that pyarrow.fs knows.

        No state is made or fetched. Raises StudyError where there cannot be one.
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


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    with _held(root), driving(root):
        yield


def _is_free(root: Path) -> bool:
    """Return whether no driver of this machine, this process included, is at work in a mirror."""
    import fcntl

    with (root / LOCK).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def _held(root: Path) -> Iterator[None]:
    import fcntl

    try:
        root.mkdir(parents=True, exist_ok=True)
        stream = (root / LOCK).open("a+")
    except OSError as error:
        raise StudyError(
            f"workspace must be a folder that can be written, got {root}: {error.strerror}; name "
            "another one"
        ) from error
    with stream:
        try:
            with mirror.settled(root):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise WorkspaceError(
                f"a workspace must have one driver at a time: {root} is in use by process "
                f"{stream.read().strip() or 'unknown'}; wait for it, or stop it"
            ) from error
        stream.seek(0)
        stream.truncate()
        stream.write(str(os.getpid()))
        stream.flush()
        yield
