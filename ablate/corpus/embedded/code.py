"""Source code: Python's standard library, other Python packages, C++ headers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ablate.corpus.embedded.documents import Document, is_generated, pieces, without_licence
from ablate.corpus.embedded.places import NOT_PROSE, package_folder, standard_library, texts

# Tables and test data, no prose and no programs.
_LIBRARY_SKIP = NOT_PROSE | {
    "encodings", "pydoc_data", "lib2to3", "ensurepip", "lib-dynload", "dist-packages",
}  # fmt: skip
_HEADERS = (".h", ".hpp", ".cuh")
# torch writes its operator headers by program; third-party headers are not torch's own style.
_OPERATORS = frozenset({"ops", "generated"})


def source_pieces(
    roots: Collection[Path], suffixes: Collection[str], skip: Collection[str] = NOT_PROSE
) -> Iterator[Document]:
    """Yield pieces of hand-written source files, without their legal notes."""
    for name, text in texts(roots, suffixes, skip):
        if not is_generated(text):
            yield from pieces(name, without_licence(text))


def python_library() -> Iterator[Document]:
    """Yield the sources of Python's standard library."""
    return source_pieces([standard_library()], (".py",), _LIBRARY_SKIP)


def cpp_headers() -> Iterator[Document]:
    """Yield C++ headers of torch (c10, ATen, torch/csrc) and of Apache Arrow."""
    torch = package_folder("torch") / "include"
    arrow = package_folder("pyarrow") / "include" / "arrow"
    return source_pieces(
        [torch / "c10", torch / "ATen", torch / "torch", arrow], _HEADERS, _OPERATORS
    )
