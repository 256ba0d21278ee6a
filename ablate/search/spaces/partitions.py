"""What a space knows of the partitions, and the check of the names in its rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ablate.errors import StudyError, did_you_mean
from ablate.study import SpaceSettings


@dataclass(frozen=True, kw_only=True)
class Partitions:
    """Facts by partition: base units, trained tokens behind them, tokens of text in the corpus."""

    units: Mapping[str, int]
    tokens: Mapping[str, int]
    available: Mapping[str, int]


def check_names(settings: SpaceSettings, partitions: Partitions) -> None:
    """Raise StudyError when a rule names a partition that is not there."""
    named = {
        "include": settings.include,
        "exclude": settings.exclude,
        "bounds": tuple(settings.bounds),
        "available": tuple(settings.available),
    }
    for key, names in named.items():
        for name in names:
            if name not in partitions.tokens:
                raise StudyError(
                    f"search.space.{key} must name partitions, got '{name}'; "
                    f"{did_you_mean(name, partitions.tokens)}"
                )
