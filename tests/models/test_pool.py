"""pool.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.errors import WorkspaceError
from ablate.models.pool import ModelPool, SeedModel, UnitModel, member_key, read_pool, write_pool
from ablate.workspace import Workspace


def unit(partition: str, index: int, folder: str = "models/unit") -> UnitModel:
    return UnitModel(
        partition=partition,
        index=index,
        fingerprint=f"{partition}{index}",
        folder=folder,
        digest="ab" * 32,
        tokens=1000,
    )


def pool(*units: UnitModel) -> ModelPool:
    return ModelPool(
        seed=SeedModel(fingerprint="5eed", folder="models/seed-5eed", digest="cd" * 32),
        units=units,
        layout_fingerprint="layout",
        tokenizer="tokenizer",
    )


def test_members_are_sorted_and_counted() -> None:
    made = pool(unit("web", 1), unit("law", 0), unit("web", 0), unit("web", 10), unit("web", 2))
    assert [member_key(u) for u in made.units] == [("law", 0), *(("web", i) for i in (0, 1, 2, 10))]
    assert made.units_of() == {"law": 1, "web": 4}


def test_the_fingerprint_is_of_the_models_not_of_their_places() -> None:
    assert pool(unit("a", 0)).fingerprint == pool(unit("a", 0, "/elsewhere")).fingerprint
    assert pool(unit("a", 0)).fingerprint != pool(unit("a", 0), unit("b", 0)).fingerprint


def test_it_is_read_back_as_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert read_pool(workspace) is None
    made = pool(unit("a", 0), unit("b", 0))
    write_pool(workspace, made)
    back = read_pool(workspace)
    assert back is not None
    assert back.to_json() == made.to_json()


@pytest.mark.parametrize(
    "change", ["sealed", "digest", "type", "missing", "extra", "twice", "seed"]
)
def test_altered_contents_are_refused(tmp_path: Path, change: str) -> None:
    workspace = Workspace(tmp_path)
    write_pool(workspace, pool(unit("a", 0), unit("b", 0)))
    value = json.loads(workspace.pool_json.read_text())
    if change != "sealed":
        del value["seal"]
    if change in ("sealed", "digest"):
        value["units"][0]["digest"] = "00" * 32
    elif change == "type":
        value["units"][0]["index"] = "0"
    elif change == "missing":
        del value["units"][0]["folder"]
    elif change == "extra":
        value["units"][0]["surprise"] = "x"
    elif change == "twice":
        value["units"].append(value["units"][0])
    else:
        value["seed"] = None
    workspace.pool_json.write_text(json.dumps(value))
    with pytest.raises(WorkspaceError, match=r"must be as (it was|they were) written") as raised:
        read_pool(workspace)
    assert "\n" not in str(raised.value) and "pool.json" in str(raised.value)
