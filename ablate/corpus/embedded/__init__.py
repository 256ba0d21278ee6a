"""Real text that any machine with the dependencies has, for `ablate demo` and `ablate init`.

It is cut out of installed packages and the standard library, and never leaves the machine.
The same packages give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from ablate.corpus.embedded.code import cpp_headers, python_library
from ablate.corpus.embedded.docstrings import numeric_docs, sessions, web_docs
from ablate.corpus.embedded.documents import Document, position, within
from ablate.corpus.embedded.javascript import minified_javascript, readable_javascript
from ablate.corpus.embedded.prose import language_reference, package_readmes
from ablate.corpus.embedded.seed import broad_mixture
from ablate.errors import CorpusError
from ablate.workspace import file_digest, fingerprint, write_atomic, write_json

Texts = Callable[[], Iterator[Document]]

# name -> (its text, most bytes of it)
PARTITIONS: dict[str, tuple[Texts, int]] = {
    "python": (python_library, 1_000_000),
    "numeric-docs": (numeric_docs, 1_000_000),
    "web-docs": (web_docs, 1_000_000),
    "sessions": (sessions, 500_000),
    "cpp": (cpp_headers, 600_000),
    "javascript": (readable_javascript, 600_000),
    "minified": (minified_javascript, 500_000),
}
DOMAINS: dict[str, tuple[Texts, int]] = {
    "reference": (language_reference, 1_000_000),
    "readmes": (package_readmes, 1_000_000),
}
SEED: dict[str, tuple[Texts, int]] = {"seed": (broad_mixture, 5_000_000)}

RECIPE = 1  # raise it when the same packages shall give other text
FEWEST_BYTES = 200_000
MANIFEST = "embedded.json"
_READ = (
    "ray", "torch", "transformers", "deepspeed", "datasets", "pyarrow", "numpy", "scipy", "pandas",
    "pydantic", "plotly", "optuna", "sympy", "networkx", "sqlalchemy", "aiohttp", "requests",
    "alembic", "urllib3", "huggingface_hub", "narwhals", "mpmath",
)  # fmt: skip


def write_embedded(folder: Path) -> dict[str, Path]:
    """Write the embedded corpus; return its files: partition, domain or "seed" -> .jsonl.gz.

    A file has one JSON object per line with `text` and `source`. Nothing is done when the folder
    already holds the text of these package versions, complete; else every file is written, and
    the list of them last.
    Raises CorpusError when a package or part of Python that the text comes from is missing.
    """
    parts = PARTITIONS | DOMAINS | SEED
    paths = {name: folder / f"{name}.jsonl.gz" for name in parts}
    mark = fingerprint({"recipe": RECIPE, "versions": _versions()})
    if not _is_complete(folder / MANIFEST, mark, paths):
        for name, (texts, limit) in parts.items():
            write_atomic(paths[name], packed(name, within(texts(), limit)))
        digests = {path.name: file_digest(path) for path in paths.values()}
        write_json(folder / MANIFEST, {"fingerprint": mark, "files": digests})
    return paths


def _versions() -> dict[str, str]:
    """Return what decides the text: the versions of Python and of the packages that are read."""
    versions = {"python": platform.python_version()}
    for name in _READ:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise CorpusError(
                f"the embedded corpus must find the installed package '{name}', got none; "
                f"install it: pip install {name}"
            ) from error
    return versions


def _is_complete(manifest: Path, mark: str, paths: Mapping[str, Path]) -> bool:
    try:
        known = json.loads(manifest.read_bytes())
        digests = known["files"] if known["fingerprint"] == mark else {}
        return all(digests.get(p.name) == file_digest(p) for p in paths.values())
    except (OSError, ValueError, KeyError, TypeError):
        return False  # anything unreadable is written again


def packed(name: str, documents: list[Document]) -> bytes:
    """Return the gzipped JSON lines of a part, in a fixed shuffle; equal documents, equal bytes.

    Raises CorpusError when there is less text than a study needs.
    """
    size = sum(len(document.text.encode()) for document in documents)
    if size < FEWEST_BYTES:
        raise CorpusError(
            f"part '{name}' of the embedded corpus must have at least {FEWEST_BYTES:,} bytes, got "
            f"{size:,}; install the pinned versions of the dependencies"
        )
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream:
        for document in sorted(documents, key=lambda d: position(d.text)):
            line = {"text": document.text, "source": document.source}
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return buffer.getvalue()
