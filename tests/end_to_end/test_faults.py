"""Processes killed while they work: the numbers are those of an undisturbed run."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from ablate import engine
from ablate.resources import Cluster
from ablate.study import load_study

pytestmark = pytest.mark.faults
SECONDS = ("merge_seconds", "evaluate_seconds")


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "work" / "trials.parquet").to_pylist()
    return [{key: v for key, v in row.items() if key not in SECONDS} for row in table]


def evaluators() -> list[int]:
    names = ("ray::ResourceTrainable", "ray::EvaluatorProcess")
    mine = psutil.Process().children(recursive=True)
    return [p.pid for p in mine if p.is_running() and " ".join(p.cmdline()).startswith(names)]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "search.space={kind: simplex}",
            "search.algorithm=random",
            "search.trials=30",
            "search.racing={alpha: 0.2}",
        ),
    ],
    ids=["plain", "raced"],
)
def test_killed_evaluators_change_no_number(ran: Path, overrides: tuple[str, ...]) -> None:
    study = load_study(ran / "study.yaml", overrides)
    journal = ran / "work" / "trials.jsonl"
    journal.unlink()  # other searches' mixtures would not come back
    engine.search(study, cluster=Cluster(cpus=2))
    reference = rows(ran)
    journal.unlink()
    killed: list[int] = []

    def kill() -> None:
        for lines in (1, 5):
            while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
                time.sleep(0.05)
            for pid in evaluators()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    engine.search(study, cluster=Cluster(cpus=2))
    thread.join()
    assert killed
    assert rows(ran) == reference
