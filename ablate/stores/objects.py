"""The objects below one URI of an object store: listed, read and written whole.

Any store of `pyarrow.fs` (s3://, gs://, abfs://, hdfs://). Credentials come from where its SDK looks
for them; they are never part of a URI. An object appears whole or not at all.
"""

from __future__ import annotations

import errno
import functools
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from ablate.errors import RunError, StudyError

Value = TypeVar("Value")

TEMPORARY_PREFIX = ".tmp-"
BUCKETS = ("s3", "gs", "gcs")
CHUNK = 8 << 20
WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
PATIENCE_SECONDS, CONTACT_SECONDS = 60.0, 5.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 8.0
# What trying again does not mend, in the words of S3, of HTTP and of Google's client.
REFUSED = re.compile(
    r"NO_SUCH_BUCKET|ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|"
    r"SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|EXPIRED_?TOKEN|"
    r"ACCOUNT_PROBLEM|HTTP status 40[0134]|InvalidAccessKeyId|PERMISSION_DENIED|UNAUTHENTICATED|"
    r"Could not create a OAuth2 access token",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Stat:
    """An object's size, and the second (of the store's clock, since 1970) of its last change."""

    bytes: int
    second: int


@functools.cache
def objects_at(uri: str) -> Objects:
    """Return the objects below a URI, one connection per process.

    Raises StudyError when the URI cannot be a workspace, or its bucket is missing or refused, and
    RunError when the store cannot be reached.
    """
    return Objects(uri)


def check_uri(uri: str) -> None:
    """Raise StudyError unless a URI names a place below a bucket, and holds no credentials."""
    parts = urlsplit(uri)
    # The user of an S3 URI is its access key; that of others is a container or a login.
    if parts.password is not None or (parts.scheme == "s3" and parts.username is not None):
        raise StudyError(
            f"workspace must hold no credentials, got some in a {parts.scheme}:// URI; give them "
            "by the environment, a profile or the machine's role"
        )
    if (parts.scheme in BUCKETS and not parts.netloc) or not parts.path.strip("/"):
        raise StudyError(
            f"workspace must be a place below a bucket, such as s3://bucket/study, got {uri}"
        )


def _with_few_requests(uri: str) -> str:
    """Return an S3 URI by which a small object is one request, not three."""
    if not uri.startswith("s3://"):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


class Objects:
    """Objects by their name, relative to the URI, with `/` between its parts."""

    def __init__(self, uri: str) -> None:
        import pyarrow as pa
        from pyarrow.fs import FileSystem, FileType

        check_uri(uri)
        self.uri = uri
        try:
            self._files, path = FileSystem.from_uri(_with_few_requests(uri))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StudyError(
                f"workspace must be a folder or a URI that pyarrow.fs knows, got {uri}: {error}"
            ) from error
        self._base = path.rstrip("/")
        bucket = self._base.split("/")[0]
        # A listing of a bucket that is not there is empty, like that of a new workspace.
        info = self._tried(lambda: self._files.get_file_info(bucket), CONTACT_SECONDS)
        if bucket and info.type == FileType.NotFound:
            raise StudyError(f"workspace must be in a bucket that exists, got {uri}; make it first")

    def find(self, name: str = "") -> dict[str, Stat]:
        """Return the object `name`, or all objects below it, by name; {} when there are none."""
        from pyarrow.fs import FileSelector, FileType

        def found() -> list[Any]:
            if name:
                info = self._files.get_file_info(self._path(name))
                if info.type != FileType.Directory:
                    return [info] if info.type == FileType.File else []
            selector = FileSelector(self._path(name), recursive=True, allow_not_found=True)
            infos = self._files.get_file_info(selector)
            return [info for info in infos if info.type == FileType.File]

        infos = self._tried(found)
        return {self._name(info.path): _stat(info) for info in infos}

    def read(self, name: str) -> bytes | None:
        """Return an object's contents, None when there is none."""

        def read() -> bytes:
            with self._files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())

        try:
            return self._tried(read)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> Stat:
        """Write an object and return its stat."""

        def write() -> None:
            with self._files.open_output_stream(self._path(name)) as stream:
                stream.write(data)

        self._tried(write)
        return self._written(name, len(data))

    def upload(self, file: Path, name: str) -> Stat:
        """Write a file, as long as it is now, as an object and return its stat."""

        def upload() -> int:
            sent = 0
            with file.open("rb") as source, self._files.open_output_stream(path) as stream:
                while piece := source.read(CHUNK):
                    stream.write(piece)
                    sent += len(piece)
            return sent

        path = self._path(name)
        return self._written(name, self._tried(upload))

    def download(self, name: str, file: Path) -> None:
        """Write an object to a file, whole or not at all.

        Raises FileNotFoundError when there is none.
        """

        def download() -> None:
            with (
                self._files.open_input_stream(self._path(name)) as source,
                partial.open("wb") as to,
            ):
                while piece := source.read(CHUNK):
                    to.write(piece)

        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
        try:
            self._tried(download)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete an object, or all below it; what is not there is gone already."""
        from pyarrow.fs import FileType

        def delete() -> None:
            kind = self._files.get_file_info(self._path(name)).type
            if kind == FileType.Directory:
                self._files.delete_dir(self._path(name))
            elif kind == FileType.File:
                self._files.delete_file(self._path(name))

        try:
            self._tried(delete)
        except FileNotFoundError:  # another one was faster
            return

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _name(self, path: str) -> str:
        """Return an object's name; raise StudyError for one that names a place elsewhere."""
        name = path.removeprefix(f"{self._base}/")
        parts = name.split("/")
        if name == path or {"", ".", ".."} & set(parts) or "\0" in name:
            raise StudyError(
                f"objects of a workspace must have plain names, got {name!r} in {self.uri}; it is "
                "none of ablate's: delete it"
            )
        return str(PurePosixPath(name))

    def _written(self, name: str, size: int) -> Stat:
        stat = self.find(name).get(name)
        if stat is None or stat.bytes != size:
            got = "none" if stat is None else f"{stat.bytes} bytes"
            raise RunError(
                f"the store must keep what is written, got {got} for the {size} bytes of {name} in "
                f"{self.uri}; run it again"
            )
        return stat

    def _tried(self, action: Callable[[], Value], patience: float = PATIENCE_SECONDS) -> Value:
        """Return `action()`, tried again for so many seconds while the store does not answer."""
        end, wait = time.monotonic() + patience, FIRST_WAIT_SECONDS
        while True:
            try:
                return action()
            except OSError as error:
                if error.errno is not None:  # of this machine's disk, or no such object
                    raise
                if REFUSED.search(str(error)):
                    raise StudyError(
                        f"workspace must be one that may be read and written, got {self.uri}: "
                        f"{error}; check its name, credentials and region"
                    ) from error
                if time.monotonic() + wait > end:
                    raise RunError(
                        f"the store of the workspace must answer, got none from {self.uri} within "
                        f"{patience:.0f} s: {' '.join(str(error).split())}; what it holds is kept: "
                        "run it again"
                    ) from error
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _stat(info: Any) -> Stat:
    # HEAD and LIST need not agree below a second.
    return Stat(bytes=info.size, second=info.mtime_ns // 10**9)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine, waiting for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        take_lock(stream, file)
        yield


def take_lock(stream: IO[str], file: Path, *, wait: bool = True) -> bool:
    """Take the lock of an open file until it is closed; return False when another one has it.

    Raises StudyError where the file system has no locks.
    """
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        raise StudyError(
            f"a workspace must be on a file system with locks (flock), got {file}: "
            f"{error.strerror}; mount it with them (Lustre: -o flock), or name another place"
        ) from error
    return True
