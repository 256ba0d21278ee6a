"""Write text by field and part, cut out of installed packages: `python make_corpus.py FOLDER`.

A field is a package, and a part a run of its modules in alphabetical order. They stand in for a
corpus of papers by field and year; nothing is downloaded. Own text does as well: FOLDER/texts needs
JSON lines with `text` and the two keys that study.yaml names.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from ablate.corpus.embedded.code import python_library, source_pieces
from ablate.corpus.embedded.documents import Document, pieces, within
from ablate.corpus.embedded.places import files, package_folder, read_text
from ablate.corpus.embedded.prose import language_reference, package_readmes
from ablate.corpus.embedded.seed import broad_mixture

# field -> (the folder below its package, how its files end, how many parts)
FIELDS = {
    "sympy": ("", ".py", 3),
    "scipy": ("", ".py", 2),
    "sqlalchemy": ("", ".py", 2),
    "pandas": ("", ".py", 1),
    "networkx": ("", ".py", 1),
    "torch": ("include/torch/csrc", ".h", 1),  # its C++ headers
}
PART_BYTES = 140_000  # a little more than one unit
SEED_BYTES = 3_000_000
OUTSIDE_BYTES = 60_000


def main(folder: Path) -> None:
    """Write the fields, the seed's text and the texts that no field holds."""
    texts = folder / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    rows = [row for field in FIELDS for row in field_rows(field)]
    write(texts / "fields.jsonl.gz", rows)
    write(texts / "seed.jsonl.gz", plain(within(broad_mixture(), SEED_BYTES)))
    arrow = package_folder("pyarrow") / "include" / "arrow"
    outside = {
        "reference": language_reference(),
        "readmes": package_readmes(),
        "library": python_library(),
        "arrow": source_pieces([arrow], (".h",)),
    }
    for name, documents in outside.items():
        write(texts / f"{name}.jsonl.gz", plain(within(documents, OUTSIDE_BYTES)))
    print(f"wrote {texts}: {len(rows):,} documents of {len(FIELDS)} fields")


def field_rows(field: str) -> list[dict[str, str]]:
    """Return the documents of one field, part by part."""
    inner, suffix, parts = FIELDS[field]
    root = package_folder(field) / inner
    modules: dict[str, list[Document]] = {}
    for name, path in files(root, (suffix,)):
        text = read_text(path) or ""
        module = path.relative_to(root).parts[0]
        modules.setdefault(module, []).extend(pieces(name, text))
    ordered = [modules[name] for name in sorted(modules)]
    return [
        {"text": document.text, "field": field, "part": str(number), "source": document.source}
        for number, group in enumerate(shares(ordered, parts), start=1)
        for document in within(group, PART_BYTES)
    ]


def shares(modules: list[list[Document]], parts: int) -> list[list[Document]]:
    """Return neighbouring modules in `parts` groups of about as much text each."""
    total = sum(len(document.text) for module in modules for document in module)
    groups: list[list[Document]] = [[] for _ in range(parts)]
    before = 0
    for module in modules:
        groups[min(parts - 1, before * parts // total)] += module
        before += sum(len(document.text) for document in module)
    return groups


def plain(documents: Iterable[Document]) -> list[dict[str, str]]:
    """Return documents as rows without a field."""
    return [{"text": document.text, "source": document.source} for document in documents]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as compressed JSON lines; the same rows give the same bytes."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
