"""JavaScript: readable (the sources inside Ray's dashboard) and minified, as browsers get it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ablate.corpus.embedded.documents import Document, is_generated, pieces, position
from ablate.corpus.embedded.places import package_folder, read_text
from ablate.errors import CorpusError

# Tables of shapes and of keywords.
_DRAWINGS = ("react-icons", "svg-icons", "highlight.js/es/languages")


def _dashboard() -> Path:
    return package_folder("ray") / "dashboard" / "client" / "build" / "static" / "js"


def readable_javascript() -> Iterator[Document]:
    """Yield the sources that the dashboard's source maps carry (JavaScript and TypeScript)."""
    found: dict[str, str] = {}
    for path in sorted(_dashboard().glob("*.js.map")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found |= {
            name: text
            for name, text in zip(content["sources"], content["sourcesContent"], strict=True)
            if text and not any(mark in name for mark in _DRAWINGS) and not is_generated(text)
        }
    for name in sorted(found, key=position):
        yield from pieces(f"dashboard/{name}", found[name])


def minified_javascript() -> Iterator[Document]:
    """Yield minified bundles (Ray's dashboard, plotly): text that people do not write."""
    bundles = [*sorted(_dashboard().glob("main.*.js")), _plotly_bundle()]
    documents: list[Document] = []
    for path in bundles:
        text = read_text(path) or ""
        part = 100_000  # characters; a bundle is one long file, cut evenly
        for start in range(0, len(text), part):
            documents += pieces(
                f"{path.name}@{start}", text[start : start + part], cut_after="\n;,}"
            )
    return iter(sorted(documents, key=lambda document: position(document.text)))


def _plotly_bundle() -> Path:
    path = package_folder("plotly") / "package_data" / "plotly.min.js"
    if not path.is_file():
        raise CorpusError(
            f"the embedded corpus must find plotly's bundle, got none at {path}; "
            "install the pinned version of plotly"
        )
    return path
