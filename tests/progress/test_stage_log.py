"""The log of a stage: what happened, when; what is wrong with the file itself hurts no run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ablate import progress, stage_log
from ablate.errors import StudyError
from ablate.progress import bar, note, stage, tell
from ablate.stage_log import logged


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_stage_has_a_log_of_begin_notes_parts_and_end(tmp_path: Path) -> None:
    with logged(tmp_path), stage("train"):
        with stage("prepare"):
            tell("skipped", what="corpus", why="complete")
        with bar("fit", 4) as advance:
            advance(3, "almost")
        note("unit-a: trained again, its digest does not match")
    inner, outer = lines(tmp_path / "prepare.jsonl"), lines(tmp_path / "train.jsonl")
    assert [line["event"] for line in inner] == ["begin", "skipped", "end"]
    assert [line["event"] for line in outer] == ["begin", "part", "note", "end"]
    assert {line["stage"] for line in inner} == {"prepare"}
    assert outer[1] | {"time": "", "seconds": 0} == {
        "time": "", "stage": "train", "event": "part",
        "part": "fit", "total": 4, "seconds": 0, "done": 3, "detail": "almost",
    }  # fmt: skip
    assert outer[2]["text"].startswith("unit-a")
    assert outer[3]["outcome"] == "done" and outer[3]["seconds"] >= 0
    times = [datetime.fromisoformat(line["time"]) for line in outer]
    assert times == sorted(times) and all(time.tzinfo == UTC for time in times)


def test_notes_are_logged_where_they_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "quiet", True)
    with logged(tmp_path), stage("search"):
        note("the worker died; going on")
    assert lines(tmp_path / "search.jsonl")[1]["text"] == "the worker died; going on"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StudyError("tokens must be there"), {"outcome": "failed", "error": "StudyError: tokens must be there"}),
        (KeyboardInterrupt(), {"outcome": "stopped"}),
    ],
)  # fmt: skip
def test_the_end_says_why_a_stage_ended(
    tmp_path: Path, error: BaseException, outcome: dict[str, str]
) -> None:
    with pytest.raises(type(error)), logged(tmp_path), stage("train"):
        raise error
    end = lines(tmp_path / "train.jsonl")[-1]
    assert {key: end[key] for key in end if key in ("outcome", "error")} == outcome
    with logged(tmp_path):
        note("outside of a stage")
    assert lines(tmp_path / "other.jsonl")[0]["text"] == "outside of a stage"


def test_a_log_is_appended_to_whatever_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"time": "2026-01-01T00:00:00+00:00", "stage"\xff\x00')
    for _ in range(2):
        with logged(tmp_path), stage("train"):
            pass
    first, *rest = path.read_bytes().splitlines()
    assert first.endswith(b"\xff\x00")
    assert [json.loads(line)["event"] for line in rest] == ["begin", "end"] * 2


def test_a_log_is_bounded_and_so_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_log, "MOST_BYTES", 3 * stage_log.TEXT_LENGTH)
    with logged(tmp_path), stage("train"):
        for number in range(20):
            note(f"{number} " + "x" * 100_000)
    assert {file.name for file in tmp_path.iterdir()} == {"train.jsonl", "train.1.jsonl"}
    assert all(file.stat().st_size <= stage_log.MOST_BYTES for file in tmp_path.iterdir())
    kept = [*lines(tmp_path / "train.1.jsonl"), *lines(tmp_path / "train.jsonl")]
    assert kept[-1]["event"] == "end" and kept[-2]["text"].startswith("19 x")


def unwritable(folder: Path) -> None:
    (folder / "train.jsonl").mkdir()


def full(folder: Path) -> None:
    (folder / "train.jsonl").symlink_to("/dev/full")


@pytest.mark.parametrize("spoil", [unwritable, full])
def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if spoil is full and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    spoil(tmp_path)
    done = []
    with logged(tmp_path), stage("train"):
        note("one")
        with stage("prepare"):
            done.append("prepare")
        done.append("train")
    said = capsys.readouterr().err
    assert done == ["prepare", "train"]
    assert said.count("goes on without its log") == 1 and "train.jsonl" in said
    assert [line["event"] for line in lines(tmp_path / "prepare.jsonl")] == ["begin", "end"]
