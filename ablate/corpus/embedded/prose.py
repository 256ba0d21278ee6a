"""Evaluation domains that no partition holds: the language reference, and package READMEs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import metadata

from ablate.corpus.embedded.documents import Document, pieces, position
from ablate.corpus.embedded.places import standard_library
from ablate.errors import CorpusError

# What the project depends on, directly or through them; absent ones are passed over.
_DISTRIBUTIONS = (
    "ray", "torch", "transformers", "deepspeed", "datasets", "tokenizers", "safetensors",
    "pyarrow", "numpy", "scipy", "pandas", "pydantic", "typer", "rich", "plotly", "optuna",
    "sympy", "mpmath", "networkx", "aiohttp", "requests", "urllib3", "sqlalchemy", "alembic",
    "huggingface_hub", "fsspec", "filelock", "packaging", "tqdm", "psutil", "regex", "xxhash",
    "attrs", "anyio", "click", "einops", "dill", "multiprocess", "jinja2", "jsonschema",
    "pygments", "yarl", "multidict", "frozenlist", "propcache", "aiosignal", "msgpack",
    "narwhals", "colorlog", "charset-normalizer", "idna", "certifi", "h11", "setuptools",
    "markdown-it-py", "python-dateutil", "py-cpuinfo", "annotated-types", "typing_extensions",
)  # fmt: skip


def language_reference() -> Iterator[Document]:
    """Yield the topics of Python's language reference (`pydoc_data`, the text behind `help()`).

    Raises CorpusError when this Python comes without it.
    """
    path = standard_library() / "pydoc_data" / "topics.py"
    if not path.is_file():
        raise CorpusError(
            f"the embedded corpus must find Python's language reference, got none at {path}; "
            "use a Python that is installed with pydoc_data"
        )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    topics: dict[str, str] = next(
        ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
    )
    for name in sorted(topics, key=position):
        yield from pieces(f"pydoc_data/{name}", topics[name])


def package_readmes() -> Iterator[Document]:
    """Yield the descriptions that installed distributions carry in their metadata."""
    for name in sorted(_DISTRIBUTIONS, key=position):
        try:
            text = metadata.distribution(name).read_text("METADATA") or ""
        except metadata.PackageNotFoundError:
            continue
        _, _, description = text.partition("\n\n")
        yield from pieces(f"{name}/METADATA", description)
