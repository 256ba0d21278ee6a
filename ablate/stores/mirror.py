"""Mirrors: a workspace on an object store is used as plain paths, below a folder of each node.

The store holds the truth. `<top>/ablate-mirrors/<side>/<URI>/<name>` mirrors the object `<name>`
below `<URI>`: the path alone says which, so it may travel to any node as the text that it is. Each
node has its own `<top>`; the driver's mirror (side `driver`) is apart from that of tasks and workers
(side `node`). All functions take plain paths too, and leave them as they are.

A file is current when it has the size and the time of its object. What is read is checked by its
digest as in any workspace: a mirror never makes a wrong number.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat as modes
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from ablate.errors import StudyError
from ablate.stores.objects import TEMPORARY_PREFIX, Objects, Stat, check_uri, locked, objects_at

MIRRORS = "ablate-mirrors"
TOP_VARIABLE = "ABLATE_MIRRORS"
DRIVER, NODE = "driver", "node"
JOURNAL = "trials.jsonl"
DRIVERS = ".drivers"
PULL_LOCK = ".pull"
MACHINE_FILE = ".machine"
AT_ONCE = 8
LONGEST_NAME = 250  # bytes that a disk allows in one name

# What a driver need not have: it is read where it is used, by `fetched`.
LATER = ("likelihoods/", "statistics/", "logs/", "tracking/", f"{DRIVERS}/")
# What only a driver writes, in place, and no number depends on: logs of stages, files of trackers.
RECORDS = ("logs/", "tracking/")
STEP_LOGS = "logs/train-"  # written by workers: none of them
LATER_KINDS = (".safetensors", ".arrow")

_listings: dict[Path, dict[str, Stat]] = {}
"""What the store held when this process last looked, by the mirror of a workspace it opened."""

watched: dict[Path, Callable[[], None]] = {}
"""Of mirrors that this process drives: raises when it may not write any more."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A path in a mirror: `root` is the mirror's own folder, `name` the object's ("" = all)."""

    root: Path
    side: str
    uri: str
    name: str

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def objects(self) -> Objects:
        return objects_at(self.uri)


def open_mirror(uri: str) -> Path:
    """Return the folder of the driver's mirror of a workspace; nothing is fetched.

    Raises StudyError for a URI that cannot be a workspace.
    """
    uri = uri.rstrip("/")
    check_uri(uri)
    root = _root(DRIVER, uri)
    _listings.setdefault(root, {})
    return root


def location(root: Path) -> str:
    """Return the URI of a mirror, or the folder itself."""
    place = _place(root)
    return str(root) if place is None else place.uri


def named(text: str) -> str:
    """Return a message with the names of objects where it has paths of mirrors."""
    pattern = rf"[^\s'\"]*/{MIRRORS}/(?:{DRIVER}|{NODE})/([^\s/'\";:,]+)"
    return re.sub(pattern, lambda found: unquote(found[1]), text)


def here(path: Path | str) -> Path:
    """Return the path of the same object in this process's mirror; plain paths stay."""
    place = _place(path)
    return Path(path) if place is None else place.path


def fetched(path: Path | str) -> Path:
    """Return a file or folder as the store has it, fetched as far as it is not current.

    What the store lacks is not there any more. Processes of a node fetch it once.
    """
    place = _place(path)
    if place is None:
        return Path(path)
    with locked(_lock_of(place)):
        wanted = place.objects.find(place.name)
        _remove_others(place.path, wanted, place.root)
        _download(place, wanted)
    return place.path


def kept(path: Path, *, last: str | None = None) -> Path:
    """Write a file, or all files of a folder, to the store, and return its path.

    The file named `last` is written after all others: a folder is complete when it is there.
    """
    place = _place(path)
    if place is None:
        return path
    may_write(path)
    local = place.path
    files = [local] if local.is_file() else sorted(p for p in local.rglob("*") if p.is_file())
    _upload(place, [file for file in files if file.name != last])
    _upload(place, [file for file in files if file.name == last])
    return local


def may_write(path: Path) -> None:
    """Raise what keeps this driver from writing: its lease is lost, or the store does not answer."""
    place = _place(path)
    if place is not None and place.root in watched:
        watched[place.root]()


def forget(path: Path) -> None:
    """Delete a file, or all that is below a folder, from the store."""
    place = _place(path)
    if place is None:
        return
    place.objects.delete(place.name)
    listing = _listings.get(place.root, {})
    for name in [name for name in list(listing) if _is_below(name, place.name)]:
        del listing[name]


def is_mirrored(path: Path | str) -> bool:
    """Return whether a path is in a mirror."""
    return _place(path) is not None


def is_vouched(path: Path, by: Path) -> bool:
    """Return whether the store holds the file `path` as it was when its record `by` was written.

    Then no byte of it need be fetched to be compared with its digest; who uses it does that.
    False for plain paths, and in processes that opened no workspace.
    """
    place, record = _place(path), _place(by)
    if place is None or record is None:
        return False
    listing = _listings.get(place.root, {})
    found, written = listing.get(place.name), listing.get(record.name)
    return found is not None and written is not None and found.second <= written.second


def entries(folder: Path) -> Mapping[Path, int | None]:
    """Return what is in a folder: the bytes of each file, None for a folder; links left out."""
    place = _place(folder)
    if place is None:
        there = folder.iterdir() if folder.is_dir() else ()
        return {
            path: None if path.is_dir() else path.stat().st_size
            for path in sorted(there)
            if not path.is_symlink()
        }
    found: dict[Path, int | None] = {}
    for name, stat in sorted(_listings.get(place.root, {}).items()):
        if _is_below(name, place.name) and name != place.name:
            first, *rest = name.removeprefix(f"{place.name}/" if place.name else "").split("/")
            found[folder / first] = None if rest else stat.bytes
    return found


def machine_mark(path: Path) -> str:
    """Return a mark of the mirror that a path is in: processes with the same one share its files."""
    place = _require(path)
    file = place.root / MACHINE_FILE
    with locked(place.root / f"{MACHINE_FILE}-lock"):
        if not file.is_file():
            file.write_text(secrets.token_hex(16))
        return file.read_text()


def stored_bytes(folder: Path) -> int | None:
    """Return the bytes that the store holds below a folder, None for a plain one."""
    place = _place(folder)
    if place is None:
        return None
    listing = _listings.get(place.root, {})
    stats = list(listing.items())  # a driver's thread adds to it
    return sum(stat.bytes for name, stat in stats if _is_below(name, place.name))


def pull(root: Path, *, alone: bool) -> None:
    """Bring the state in the driver's mirror up to date: all but weights, tokens and the like.

    `alone` says that no driver of this machine is at work in it: then what the store lacks is
    removed, and the journal is the store's. A journal here that goes on where the store's ends is
    kept: its last lines were not written before a crash.
    """
    place = _require(root)
    found = place.objects.find()
    _listings[root] = found
    state = {name: stat for name, stat in found.items() if _is_state(name)}
    if alone:
        _remove_others(root, found, root)
    _download(place, state)
    if alone:
        _pull_journal(place, JOURNAL in found)


@contextmanager
def settled(path: Path) -> Iterator[None]:
    """Hold off other processes of this machine that would bring the driver's mirror up to date.

    Between a change of a file in it and that of its object they would put the old one back.
    Nothing is held for other paths.
    """
    place = _place(path)
    if place is None or place.root not in _listings:
        yield
        return
    with locked(place.root / PULL_LOCK):
        yield


def bring_records(root: Path) -> None:
    """Fetch the driver's logs and its trackers' files, but for those that are younger here.

    These were not kept before a crash.
    """
    place = _require(root)
    stored = {name: stat for name, stat in _listings[root].items() if _is_record(name)}
    _download(place, {n: stat for n, stat in stored.items() if not _is_younger(place, n, stat)})


def keep_records(root: Path, *folders: str) -> None:
    """Write those files to the store as far as they changed; logs may grow meanwhile."""
    place, listing = _require(root), _listings[root]
    for file in (file for folder in folders for file in _files(root / folder)):
        name = str(file.relative_to(root))
        known = listing.get(name)
        changed = known is None or not _is_current(place, name, known)
        if changed and _is_record(name) and not file.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # a log that was renamed meanwhile
                _upload(place, [file])


def sweep(root: Path) -> None:
    """Delete what runs that were killed left in the store under temporary names."""
    for name in sorted({_temporary_part(name) for name in _listings[root]} - {""}):
        forget(root / name)


def _pull_journal(place: _Place, there: bool) -> None:
    file = place.root / JOURNAL
    stored = place.objects.read(JOURNAL) if there else None
    ours = file.read_bytes() if file.is_file() else b""
    if stored is not None and not (ours.startswith(stored) and len(ours) > len(stored)):
        file.write_bytes(stored)
    elif stored is None:
        file.unlink(missing_ok=True)


def _is_state(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    later = name.startswith(LATER) or name.endswith(LATER_KINDS)
    return not (hidden or later or name == JOURNAL)


def _is_record(name: str) -> bool:
    return name.startswith(RECORDS) and not name.startswith(STEP_LOGS)


def _is_temporary(name: str) -> bool:
    return bool(_temporary_part(name))


def _temporary_part(name: str) -> str:
    """Return a name up to its first temporary part, "" when it has none."""
    parts = name.split("/")
    ends = [end for end, part in enumerate(parts, 1) if part.startswith(TEMPORARY_PREFIX)]
    return "/".join(parts[: ends[0]]) if ends else ""


def _is_below(name: str, folder: str) -> bool:
    return not folder or name == folder or name.startswith(f"{folder}/")


def _place(path: Path | str) -> _Place | None:
    text = str(path)
    if f"/{MIRRORS}/" not in text:
        return None
    top, _, rest = text.partition(f"/{MIRRORS}/")
    side, _, rest = rest.partition("/")
    quoted, _, name = rest.partition("/")
    if side not in (DRIVER, NODE) or "%3A%2F%2F" not in quoted:
        return None
    root = Path(top) / MIRRORS / side / quoted
    uri = unquote(quoted)
    if root not in _listings:  # a path of the driver's, or of another node's
        side, root = NODE, _root(NODE, uri)
    return _Place(root=root, side=side, uri=uri, name=name.rstrip("/"))


def _require(root: Path) -> _Place:
    place = _place(root)
    assert place is not None
    return place


def _root(side: str, uri: str) -> Path:
    name = quote(uri, safe="")
    if len(name) > LONGEST_NAME:
        raise StudyError(f"workspace must be a shorter URI, got {len(name)} letters in {uri}")
    return _top() / MIRRORS / side / name


def _top() -> Path:
    """Return this node's folder of mirrors: only this user may have written what is in it."""
    chosen = os.environ.get(TOP_VARIABLE)
    top = Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"ablate-{os.getuid()}"
    top = top.absolute()
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = top.stat()
    if found.st_uid != os.getuid() or modes.S_IMODE(found.st_mode) & 0o022:
        raise StudyError(
            f"mirrors of the workspace must be in a folder that only you can write, got {top}; "
            f"name another one by {TOP_VARIABLE}"
        )
    return top


def _lock_of(place: _Place) -> Path:
    mark = hashlib.sha256(str(place.path).encode()).hexdigest()[:16]
    return place.root.parents[1] / "locks" / mark


def _remove_others(path: Path, wanted: Mapping[str, Stat], root: Path) -> None:
    """Remove files of the mirror, at or below `path`, that are no objects.

    Temporary ones stay, and what a driver writes in place, which may not be kept yet.
    """
    for file in _files(path):
        name = str(file.relative_to(root))
        lock = name.startswith(".") and "/" not in name  # of this machine
        stays = name == JOURNAL or lock or _is_record(name) or _is_temporary(name)
        if name not in wanted and not stays:
            file.unlink(missing_ok=True)
    for folder in sorted((p for p in (path, *path.rglob("*")) if p.is_dir()), reverse=True):
        empty = folder != root and not any(folder.iterdir())
        if empty and not _is_temporary(str(folder.relative_to(root))):
            folder.rmdir()


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (file for file in path.rglob("*") if file.is_file())


def _download(place: _Place, wanted: Mapping[str, Stat]) -> None:
    def download(name: str) -> None:
        file, stat = place.root / name, wanted[name]
        place.objects.download(name, file)
        os.utime(file, (stat.second, stat.second))

    _all(download, [name for name in sorted(wanted) if not _is_current(place, name, wanted[name])])


def _is_current(place: _Place, name: str, stat: Stat) -> bool:
    file = place.root / name
    if not file.is_file():
        return False
    found = file.stat()
    return (found.st_size, found.st_mtime_ns) == (stat.bytes, stat.second * 10**9)


def _is_younger(place: _Place, name: str, stat: Stat) -> bool:
    file = place.root / name
    return file.is_file() and file.stat().st_mtime_ns > stat.second * 10**9


def _upload(place: _Place, files: Iterable[Path]) -> None:
    def upload(name: str) -> None:
        stat = place.objects.upload(place.root / name, name)
        os.utime(place.root / name, (stat.second, stat.second))
        if place.root in _listings:
            _listings[place.root][name] = stat

    _all(upload, [str(file.relative_to(place.root)) for file in files])


def _all(action: Callable[[str], None], names: list[str]) -> None:
    """Do it for every name, several at once; the first error is raised."""
    if len(names) < 2:
        for name in names:
            action(name)
        return
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(action, names))
