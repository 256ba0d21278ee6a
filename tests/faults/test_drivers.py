"""Drivers that end in the middle of every stage, by force and politely: the rerun goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.disturbing import VALIDATED, Run, injections, lines, numbers

pytestmark = pytest.mark.faults

# Moments in the order of a run; each comes after the one before, and is not past when that came.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "prepare": lambda work: (work / "corpus").exists(),
    "prepared": lambda work: (work / "corpus/corpus.json").exists(),
    "seed": lambda work: lines(work / "logs/train-seed*") >= 40,
    "seed, later": lambda work: lines(work / "logs/train-seed*") >= 120,
    "units": lambda work: lines(work / "logs/train-unit*") >= 20,
    "units, later": lambda work: lines(work / "logs/train-unit*") >= 250,
    "search": lambda work: lines(work / "trials.jsonl") >= 1,
    "search, later": lambda work: lines(work / "trials.jsonl") >= 7,
    "validate": lambda work: lines(work / "logs/train-trained*") >= 20,
    "validate, later": lambda work: len(list((work / "models").glob("trained-*"))) >= 2,
}
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("way", list(CODES), ids=lambda way: way.name)
def test_a_driver_that_ends_in_every_stage_changes_no_number(
    way: signal.Signals, place: Path, validated: dict[str, Any]
) -> None:
    for moment, reached in MOMENTS.items():
        run = Run(place, overrides=VALIDATED)
        run.wait_until(lambda reached=reached, run=run: reached(run.work))
        run.send(way)
        code = run.code()
        assert code == CODES[way], (moment, run.said[-2000:])
        if way != signal.SIGKILL:
            last = run.said.strip().splitlines()[-1]
            assert "what was finished is kept" in last, (moment, last)
            assert "Traceback" not in run.said, (moment, run.said[-3000:])
    run = Run(place, overrides=VALIDATED)
    run.finish()
    assert numbers(run.work) == validated


@pytest.mark.parametrize("to", ["group", "all"])
@pytest.mark.parametrize("moment", ["seed", "search"])
def test_a_polite_kill_of_more_than_the_driver_ends_it_as_one_of_the_driver(
    moment: str, to: str, place: Path
) -> None:
    """To its group, as `timeout` and shells send it; to all it has started, as systemd does."""
    run = Run(place)
    run.wait_until(lambda: MOMENTS[moment](run.work))
    started = run.children()
    assert {"gcs_server", "raylet"} <= {child.name() for child in started}
    if to == "group":
        os.killpg(run.process.pid, signal.SIGTERM)
    else:
        for process in [*started, run.process]:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    injections[f"SIGTERM to a driver's {to}"] += 1
    assert run.code(seconds=45) == 143, run.said[-2000:]
    stage = "train" if moment == "seed" else moment
    last = json.loads((run.work / f"logs/{stage}.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["outcome"]) == ("end", "stopped"), last
    assert not psutil.wait_procs(started, timeout=30)[1]


def test_a_second_driver_is_refused_and_disturbs_nothing(place: Path, calm: dict[str, Any]) -> None:
    first = Run(place)
    first.wait_until(lambda: lines(first.work / "logs/train-seed*") >= 5)
    others = [Run(place, verb) for verb in ("run", "search", "prepare")]
    for other in others:
        assert other.code() == 2, other.said
        assert "one driver at a time" in other.said and "Traceback" not in other.said
        injections["second driver"] += 1
    first.finish()
    assert numbers(first.work) == calm
