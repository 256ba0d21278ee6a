"""The pool: the seed model and all unit models, of one layout and one tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ablate.errors import WorkspaceError
from ablate.harmless import is_name
from ablate.plain_values import typed
from ablate.workspace import Workspace, fingerprint, read_json, write_json

MODEL_FOLDER = re.compile("models/[A-Za-z0-9_-]+")
MARK = re.compile("[0-9a-f]{1,64}")


@dataclass(frozen=True, kw_only=True)
class SeedModel:
    """The checkpoint from which every unit model starts."""

    fingerprint: str
    folder: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class UnitModel:
    """The model of one base unit. `folder` is relative to the workspace, or absolute (imported).

    `tokens` is what it was trained on.
    """

    partition: str
    index: int
    fingerprint: str
    folder: str
    digest: str
    tokens: int


class Member(Protocol):
    """What names a unit."""

    @property
    def partition(self) -> str:
        """Return the partition's name."""

    @property
    def index(self) -> int:
        """Return the unit's place in it."""


def member_key(unit: Member) -> tuple[str, int]:
    """Return (partition, index): the order of members in every merge."""
    return unit.partition, unit.index


@dataclass(frozen=True, kw_only=True)
class ModelPool:
    """Seed and units; `units` are sorted by (partition, index).

    `root` is the workspace's folder: where the pool was found, no part of what it is.
    """

    seed: SeedModel
    units: tuple[UnitModel, ...]
    layout_fingerprint: str
    tokenizer: str
    root: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", tuple(sorted(self.units, key=member_key)))

    @cached_property
    def fingerprint(self) -> str:
        """Return the short SHA-256 of what the models are, wherever they lie."""
        body = self.to_json()
        for item in (body["seed"], *body["units"]):
            del item["folder"]
        return fingerprint(body)

    @cached_property
    def by_member(self) -> dict[tuple[str, int], UnitModel]:
        """Return the units by (partition, index), in the order of members in every merge."""
        return {member_key(unit): unit for unit in self.units}

    def units_of(self) -> dict[str, int]:
        """Return the number of units of each partition, sorted by name."""
        return dict(sorted(Counter(unit.partition for unit in self.units).items()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "seed": asdict(self.seed),
            "units": [asdict(unit) for unit in self.units],
            "layout_fingerprint": self.layout_fingerprint,
            "tokenizer": self.tokenizer,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], root: str = "") -> ModelPool:
        """Return the pool that `to_json` wrote; raise ValueError when a field is off.

        The seed lies in the workspace's models/; a unit there too, or at an absolute path when it
        was brought in.
        """
        kinds = {"seed": SeedModel, "units": tuple[UnitModel, ...]}
        fields: dict[str, Any] = {
            key: typed(kinds.get(key, str), value.get(key), key)
            for key in ("seed", "units", "layout_fingerprint", "tokenizer")
        }
        pool = cls(root=root, **fields)
        if len(pool.by_member) != len(pool.units):
            raise ValueError("a unit stands twice")
        for name, folder in (
            ("", pool.seed.folder),
            *((unit.partition, unit.folder) for unit in pool.units),
        ):
            brought = bool(name) and Path(folder).is_absolute() and ".." not in Path(folder).parts
            if (name and not is_name(name)) or not (MODEL_FOLDER.fullmatch(folder) or brought):
                raise ValueError(f"models must lie under models/, got '{folder[:60]}'")
        for mark in (pool.seed.fingerprint, *(unit.fingerprint for unit in pool.units)):
            if not MARK.fullmatch(mark):
                raise ValueError(f"a fingerprint must be hex digits, got '{mark[:60]}'")
        return pool


def write_pool(workspace: Workspace, pool: ModelPool) -> None:
    """Write pool.json."""
    write_json(workspace.pool_json, {**pool.to_json(), "fingerprint": pool.fingerprint})


def read_pool(workspace: Workspace) -> ModelPool | None:
    """Return the pool of pool.json, None when there is none.

    Raises WorkspaceError when it was altered.
    """
    value = read_json(workspace.pool_json)
    if value is None:
        return None
    try:
        pool = ModelPool.from_json(value, str(workspace.root))
    except (ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"pool.json must be as it was written: {workspace.pool_json} is altered ({error}); "
            "delete it and run `ablate train` again, finished models are kept"
        ) from error
    if pool.fingerprint != value.get("fingerprint"):
        raise WorkspaceError(
            f"pool.json must be as it was written: the contents of {workspace.pool_json} do not "
            "fit its fingerprint; delete it and run `ablate train` again, finished models are kept"
        )
    return pool
