"""What `submit` sends to a cluster: one zip of the study, a cluster file, this code, its files.

The zip is made of named files only: nothing of the environment, no environment variable, no
token goes into it. The same study on the same files gives the same bytes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import yaml

from ablate.errors import StudyError
from ablate.resources import Cluster
from ablate.study import Study, replace_paths, to_yaml
from ablate.workspace import Workspace, fingerprint

STUDY_FILE, CLUSTER_FILE = "study.yaml", "cluster.yaml"
LIMIT_BYTES = 500 << 20
"""Ray keeps a package in its control store, which takes less than 512 MiB."""
CODE = Path(__file__).parent
CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
COMPRESSED = frozenset({".gz", ".zst", ".bz2", ".xz", ".parquet", ".safetensors"})
CHUNK = 1 << 20
LONG_AGO = (1980, 1, 1, 0, 0, 0)
REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Package:
    """The zip at `path`; `bytes` is its size, `files` the local source files in it."""

    path: Path
    bytes: int
    files: int


def write_package(path: Path, study: Study, cluster: Cluster, *, with_files: bool) -> Package:
    """Write the zip and return it.

    With files, the study's local sources, model and tokenizer go along and its paths point into
    the package; without, its paths stay absolute and must be there on the cluster. The folders of
    `units` always stay where they are: the pool refers to them for good. Raises StudyError when
    the zip would be too large for Ray, CorpusError when a path has nothing behind it.
    """
    files = _Files(trust_remote_code=study.model.trust_remote_code)
    sent = replace_paths(study, files.texts, files.checkpoint) if with_files else study
    inside = cluster.model_copy(update={"address": "auto"})
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry(STUDY_FILE), to_yaml(sent))
        archive.writestr(_entry(CLUSTER_FILE), yaml.safe_dump(inside.model_dump(mode="json")))
        for name, file in (*_code(), *sorted(files.found.items())):
            _copy(archive, stream, name, file)
    return Package(path=path, bytes=path.stat().st_size, files=len(files.found))


def workspace_mark(study: Study) -> str:
    """Return the fingerprint of the workspace's place: by it a server's jobs are found again."""
    return fingerprint({"workspace": Workspace.open(study.workspace).location})


def pinned_requirements() -> list[str]:
    """Return `name==version` of every package that ablate needs, as installed here; Ray left out.

    Ray is the cluster's own: its version cannot be changed for a job. Raises StudyError when
    ablate was not installed as a distribution.
    """
    try:
        asked = metadata.requires("ablate") or []
    except metadata.PackageNotFoundError as error:
        raise StudyError(
            "--install must know what ablate needs, got a copy that is not installed; use pip "
            "install, or prepare the cluster's environment yourself"
        ) from error
    names = {match[0] for line in asked if "extra ==" not in line and (match := _name(line))}
    return [
        f"{name}=={metadata.version(name).partition('+')[0]}" for name in sorted(names - {"ray"})
    ]


def _name(line: str) -> re.Match[str] | None:
    return REQUIREMENT.match(line)


@dataclass(kw_only=True)
class _Files:
    """Files to send, by their name in the package; each path of the study has a folder of its own."""

    trust_remote_code: bool
    found: dict[str, Path] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)

    def texts(self, path: str) -> str:
        """Return where a path of texts lies in the package; a hub id stays what it is."""
        return self._once(path, self._texts)

    def checkpoint(self, path: str) -> str:
        """Return where a model or tokenizer folder lies in the package; a hub id stays."""
        return self._once(f"{path}/", self._checkpoint)

    def _once(self, path: str, move: Callable[[str, str], str]) -> str:
        if path not in self.moved:
            self.moved[path] = move(path, f"files/{len(self.moved)}")
        return self.moved[path]

    def _texts(self, path: str, place: str) -> str:
        from ablate.corpus.source_files import resolve  # loads pandas, for texts only

        files = resolve(path, "a path that is sent along")
        if files[0].format == "hub":
            return path
        local = Path(path.removeprefix("file://")).expanduser().absolute()
        root, rest = _fixed_root(local)
        for file in files:
            self.found[f"{place}/{Path(file.path).relative_to(root).as_posix()}"] = Path(file.path)
        return f"{place}/{rest}" if rest else place

    def _checkpoint(self, path: str, place: str) -> str:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            return path.removesuffix("/")
        patterns = (*CHECKPOINT_FILES, "*.py") if self.trust_remote_code else CHECKPOINT_FILES
        for file in sorted({file for pattern in patterns for file in folder.glob(pattern)}):
            self.found[f"{place}/{file.name}"] = file
        return place


def _fixed_root(path: Path) -> tuple[Path, str]:
    """Return a path's last folder that is no pattern, and what comes below it.

    A folder is its own root, with nothing below.
    """
    if path.is_dir():
        return path, ""
    from ablate.corpus.source_files import GLOB_MARKS

    parts = path.parts
    marked = (i for i, part in enumerate(parts) if any(mark in part for mark in GLOB_MARKS))
    first = len(parts) - 1 if path.is_file() else next(marked)
    return Path(*parts[:first]), "/".join(parts[first:])


def _code() -> Iterator[tuple[str, Path]]:
    for file in sorted(CODE.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield f"ablate/{file.relative_to(CODE).as_posix()}", file


def _copy(archive: zipfile.ZipFile, stream: BinaryIO, name: str, file: Path) -> None:
    entry = _entry(name)
    entry.file_size = file.stat().st_size
    if file.suffix.lower() in COMPRESSED:
        entry.compress_type = zipfile.ZIP_STORED
    with file.open("rb") as source, archive.open(entry, "w") as target:
        while piece := source.read(CHUNK):
            target.write(piece)
            _check_size(stream.tell(), file)
    _check_size(stream.tell(), file)


def _check_size(size: int, file: Path) -> None:
    if size > LIMIT_BYTES:
        raise StudyError(
            f"what is sent must be at most {LIMIT_BYTES >> 20} MiB (Ray's limit), got more at "
            f"{file}; put the data where all nodes see it and leave --with-files out"
        )


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, LONG_AGO)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
