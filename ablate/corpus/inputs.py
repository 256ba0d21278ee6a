"""What a corpus was made from and into: enough to tell whether it is still right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ablate.corpus.scan import Piece
from ablate.corpus.token_files import content_digest
from ablate.corpus.values import Corpus, TokenFile
from ablate.stores import is_vouched
from ablate.study import Study
from ablate.workspace import Workspace, file_digest

REVISION = 1
"""Raised when the same inputs would give another corpus."""


def inputs_of(study: Study, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the questions and the source files, with sizes and times, as plain JSON values."""
    tokenizer = study.tokenizer.path or study.model.path
    files = {piece.reading.file.path for piece in pieces if piece.reading.file.format != "hub"}
    if tokenizer is not None and Path(tokenizer).is_dir():
        names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
        files |= {str(Path(tokenizer) / n) for n in names if (Path(tokenizer) / n).is_file()}
    return {
        "revision": REVISION,
        **_settings(study),
        "tokenizer_path": tokenizer,
        "uses": [[piece.kind, piece.name, piece.reading.file.path] for piece in pieces],
        "files": {path: _stat(Path(path)) for path in sorted(files)},
    }


def _settings(study: Study) -> dict[str, Any]:
    """Return what a study asks of its corpus, as plain JSON values."""
    return {
        "corpus": study.corpus.model_dump(mode="json"),
        "tokenizer": study.tokenizer.model_dump(mode="json"),
        "seed": study.seed.model_dump(mode="json", include={"sources", "tokens"}),
        "domains": {
            name: texts.model_dump(mode="json") for name, texts in study.evaluate.domains.items()
        },
        "tokens_per_domain": study.evaluate.tokens_per_domain,
    }


def changed_settings(corpus: Corpus, study: Study) -> list[str]:
    """Return the parts of a study that ask for another corpus than this one.

    Paths are left out: a workspace may be read where its texts are not.
    """
    asked = _settings(study)
    return [key for key in asked if _unplaced(asked[key]) != _unplaced(corpus.inputs.get(key))]


def _unplaced(value: Any) -> Any:
    """Return plain JSON values without the paths in them."""
    if isinstance(value, dict):
        return {key: _unplaced(one) for key, one in value.items() if key != "path"}
    return [_unplaced(one) for one in value] if isinstance(value, list) else value


def outputs_of(corpus: Corpus, workspace: Workspace) -> dict[str, Any]:
    """Return size, time and digest of every file that the corpus consists of."""
    found = {}
    for file in _token_files(corpus):
        found[file.path] = [*_stat(workspace.root / file.path), file.digest]
    for path in sorted(workspace.tokenizer.iterdir()):
        relative = str(path.relative_to(workspace.root))
        found[relative] = [*_stat(path), file_digest(path)]
    return found


def what_changed(corpus: Corpus, inputs: dict[str, Any], workspace: Workspace) -> str | None:
    """Return why a corpus must be made again, or None when it is complete and right.

    Evaluation files and the tokenizer are compared with their digests; train files only when their
    size or time differs, since they may be large. On an object store a file that is older than
    corpus.json is as it was: whoever reads it compares its digest.
    """
    asked = {key: value for key, value in corpus.inputs.items() if key != "outputs"}
    if asked != inputs:
        keys = [key for key in inputs if asked.get(key) != inputs[key]]
        return f"{', '.join(keys)} changed"
    small = {info.tokens_file.path for info in corpus.domains.values()}
    for name, (size, time, digest) in corpus.inputs.get("outputs", {}).items():
        path = workspace.root / name
        if is_vouched(path, workspace.corpus_json):
            continue
        if not path.is_file():
            return f"{path} is missing"
        is_train = name.endswith(".arrow") and name not in small
        if is_train and _stat(path) == [size, time]:
            continue
        found = content_digest(path) if name.endswith(".arrow") else file_digest(path)
        if found != digest:
            return f"{path} does not match its digest"
    return None


def _token_files(corpus: Corpus) -> Iterable[TokenFile]:
    yield from (info.train for info in corpus.partitions.values())
    yield from (info.tokens_file for info in corpus.domains.values())
    if corpus.seed is not None:
        yield corpus.seed


def _stat(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
