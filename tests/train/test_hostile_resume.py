"""A resume state whose digests fit and whose pickle would run code: it does not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from ablate.train.loop import train_one
from ablate.train.resume import RESUME_FILE, _usable
from ablate.workspace import file_digest, read_json, write_json
from tests.train.runs import Listener, job, placement, same

pytestmark = pytest.mark.usefixtures("alone")


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


def raw(state: Path, payload: Payload) -> None:
    state.write_bytes(pickle.dumps(payload))


def saved(state: Path, payload: Payload) -> None:
    torch.save({"module": {}, "extra": payload}, state)


def saved_as_deepspeed_does(state: Path, payload: Payload) -> None:
    torch.save({"extra": payload}, state, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("plant", [raw, saved, saved_as_deepspeed_does])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_pickle_under_fitting_digests_runs_nothing(
    root: Path,
    tmp_path: Path,
    plant: object,
    stage: int,
) -> None:
    marker = tmp_path / "owned"
    whole, broken = job(root, "whole"), job(root, "broken")
    train_one(whole, placement(stage), Listener())
    train_one(broken, placement(stage), Listener(stop_at=512))
    folder = Path(broken.resume_folder)
    state = sorted(folder.glob("step-*/*.pt"))[-1]
    plant(state, Payload(marker))  # type: ignore[operator]
    body = read_json(folder / RESUME_FILE)
    assert body is not None
    body["files"][str(state.relative_to(folder))] = file_digest(state)
    write_json(folder / RESUME_FILE, body)
    listener = Listener()
    assert train_one(broken, placement(stage), listener)
    assert not marker.exists()
    assert listener.heard[0] == 256 and any("starting over" in note for note in listener.notes)
    assert same(whole, broken)


@pytest.mark.parametrize("plant", [raw, saved, saved_as_deepspeed_does])
def test_the_payload_is_real(tmp_path: Path, plant: object) -> None:
    plant(tmp_path / "state.pt", Payload(tmp_path / "owned"))  # type: ignore[operator]
    if plant is raw:
        pickle.loads((tmp_path / "state.pt").read_bytes())
    else:
        torch.load(tmp_path / "state.pt", weights_only=False)
    assert (tmp_path / "owned").exists()


def test_json_of_the_state_may_have_any_types(root: Path) -> None:
    broken = job(root, "broken")
    train_one(broken, placement(0), Listener(stop_at=512))
    file = Path(broken.resume_folder) / RESUME_FILE
    sound = json.loads(file.read_text())
    for key in ("tag", "step", "seconds", "identity", "files"):
        for value in (None, True, -1, 1e999, "../../x", [], {}, {"../../../etc/passwd": "0" * 64}):
            file.write_text(json.dumps({**sound, key: value, "seal": None}))
            notes: list[str] = []
            usable = _usable(Path(broken.resume_folder), sound["identity"], notes.append)
            assert (usable is None) == bool(notes)
