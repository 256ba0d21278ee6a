"""Text of the seed model: a broad mixture from packages and files that no partition reads."""

from __future__ import annotations

from collections.abc import Iterator

from ablate.corpus.embedded.code import source_pieces
from ablate.corpus.embedded.docstrings import prose_of, sessions_of
from ablate.corpus.embedded.documents import Document, position, within
from ablate.corpus.embedded.places import package_folder

_CODE = ("transformers", "torch", "ray", "datasets", "optuna", "deepspeed")
_DOCUMENTED = ("transformers", "torch", "optuna", "datasets", "plotly", "ray")
_SESSIONS = ("narwhals", "mpmath", "optuna")
_OTHER_SIDE = frozenset({"tests", "test", "include", "dashboard", "__pycache__", "_vendor", "csrc"})


def broad_mixture() -> Iterator[Document]:
    """Yield Python code, its documentation, C and C++ code, and some sessions, well mixed."""
    include = package_folder("torch") / "include"  # here of the libraries that torch uses
    native = [
        package_folder("deepspeed") / "ops" / "csrc",
        package_folder("numpy"),
        *(include / name for name in ("pybind11", "oneapi", "fmt", "tensorpipe")),
    ]
    kinds = (
        within(source_pieces([package_folder(p) for p in _CODE], (".py",), _OTHER_SIDE), 1_800_000),
        within(prose_of(_DOCUMENTED), 1_600_000),
        within(source_pieces([p for p in native if p.is_dir()], (".h", ".cpp")), 900_000),
        within(sessions_of(_SESSIONS), 250_000),
    )
    documents = [document for kind in kinds for document in kind]
    return iter(sorted(documents, key=lambda document: position(document.text)))
