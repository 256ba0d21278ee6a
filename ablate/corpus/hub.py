"""Rows of a data set of the Hugging Face hub, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablate.errors import CorpusError

CONTACT_SECONDS = 20.0


def hub_rows(
    path: str, split: str, wanted: Sequence[str], max_bytes: int | None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the wanted columns of `id` or `id:config`, until `max_bytes` of text when given.

    The first wanted column is the text. Raises CorpusError when there is no such data set.
    """
    read = 0
    for number, row in enumerate(_stream(path, split, wanted)):
        yield f"{path}, row {number}", row
        text = row[wanted[0]]
        read += len(text.encode(errors="replace")) if isinstance(text, str) else 0
        if max_bytes is not None and read >= max_bytes:
            return


def _stream(path: str, split: str, wanted: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    name, _, config = path.partition(":")
    try:
        # Asked once and first: load_dataset tries six times before it says that nothing is there.
        HfApi().dataset_info(name, timeout=CONTACT_SECONDS)
        stream = datasets.load_dataset(name, config or None, split=split, streaming=True)
        rows = iter(stream)
        first = next(rows, None)
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        raise CorpusError(
            f"a source must be a file, folder, glob or hub id, got {path}: no such file, and the "
            f"hub answers {type(error).__name__}: {_short(error)}; check the path (a hub "
            "configuration is written id:config)"
        ) from error
    if first is None:
        return
    missing = [column for column in wanted if column not in first]
    if missing:
        raise CorpusError(
            f"{path} must have the columns {', '.join(missing)}, got {', '.join(list(first)[:12])}; "
            "name the column in the study"
        )
    yield {column: first[column] for column in wanted}
    try:
        yield from ({column: row[column] for column in wanted} for row in rows)
    except (OSError, HTTPError) as error:
        raise CorpusError(
            f"the hub must be reachable while {path} is read, got {type(error).__name__}: "
            f"{_short(error)}; run again"
        ) from error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
