"""Figures as files for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import StudyError
from ablate.workspace import slug, write_atomic

FORMATS = ("svg", "pdf", "png")
WIDTH = 900  # pixels; PNG files have twice as many
SCALE = 2


def write_figures(
    figures: Mapping[str, Any], folder: Path, formats: Sequence[str] = ("svg",)
) -> tuple[Path, ...]:
    """Write each figure (plotly, by name) in each format into `folder`; return the files.

    They are drawn by kaleido and Chrome, which `ablate` does not bring. Raises StudyError in one
    line when either is missing, or for an unknown format.
    """
    for kind in formats:
        if kind not in FORMATS:
            raise StudyError(
                f"figures must be written as {', '.join(FORMATS)}, got '{kind}'; name one of them"
            )
    written = []
    for name, figure in figures.items():
        for kind in formats:
            path = folder / f"{slug(name)}.{kind}"
            write_atomic(path, _drawn(figure, kind))
            written.append(path)
    return tuple(written)


def _drawn(figure: Any, kind: str) -> bytes:
    height = int(figure.layout.height or 450)
    try:
        image = figure.to_image(format=kind, width=WIDTH, height=height, scale=SCALE)
    except (ValueError, RuntimeError) as error:
        text = str(error).lower()
        if "kaleido" in text and "pip install" in text:
            raise StudyError(
                "the package kaleido must be installed to write figures as files, got none; "
                "pip install 'kaleido>=1'"
            ) from error
        if "chrome" in text:
            raise StudyError(
                "Chrome must be installed for kaleido to draw figures, got none; install Chrome or "
                "Chromium, or run plotly_get_chrome"
            ) from error
        raise
    return bytes(image)
