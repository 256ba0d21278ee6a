"""What Prometheus reads from a node of Ray while a stage runs."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from ablate.cluster import metrics
from ablate.cluster.metrics import TrainingMeter, TrialMeter
from ablate.cluster.queue import JobQueue, Snapshot
from ablate.progress import heard_by, stage, tell
from tests.train.runs import job

LINE = re.compile(r"^ray_(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
OURS = ("lane", "outcome", "state", "le")
PATIENCE = 40.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _system_config={"metrics_report_interval_ms": 1000},
    )
    yield
    ray.shutdown()


def scraped() -> dict[tuple[str, str], float]:
    """Return value[name, own label's value] from the node's Prometheus text."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in (match.groups() for match in LINE.finditer(text)):
        own = [text for key, text in LABEL.findall(labels or "") if key in OURS]
        found[name, " ".join(own)] = float(value)
    return found


def once(holds: Callable[[dict[tuple[str, str], float]], bool]) -> dict[tuple[str, str], float]:
    """Return the node's metrics as soon as `holds` of them; the last ones after `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = scraped()
        except OSError:  # the node's agent is not up yet
            found = {}
        if holds(found) or time.monotonic() > end:
            return found
        time.sleep(0.3)


def snapshot(
    lanes: dict[int, int], *, finished: int = 0, running: int = 2, waiting: int = 3
) -> Snapshot:
    return Snapshot(
        tokens=sum(lanes.values()),
        finished=finished,
        running=tuple(f"unit-{i}" for i in range(running)),
        waiting=waiting,
        failures=(),
        notes=(),
        lane_tokens=lanes,
    )


def trial(**values: object) -> dict[str, object]:
    scored = {"members": 3, "merge_seconds": 0.5, "evaluate_seconds": 2.0, "error": None}
    return {**scored, "evaluated_tokens": 3000, "estimate": None, **values}


@pytest.mark.usefixtures("cluster")
def test_a_node_exports_training_and_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "WINDOW_SECONDS", 0.2)
    training = TrainingMeter()
    training.see(snapshot({0: 1000, 1: 500}))
    time.sleep(0.5)
    training.see(snapshot({0: 3000, 1: 500}, finished=1))
    trials = TrialMeter(models=5, model_bytes=400_000_000, evaluators=2)
    with heard_by(trials), stage("search"):
        for _ in range(3):
            tell("trial", **trial())
        time.sleep(0.3)
        tell("trial", **trial(error="not finite", merge_seconds=0.0, evaluated_tokens=0))
        tell("trial", **trial(estimate=3.1))
    found = once(lambda now: now.get(("ablate_trials_total", "stopped")) == 1)
    assert found["ablate_trained_tokens_total", "0"] == 3000
    assert found["ablate_trained_tokens_total", "1"] == 500
    assert 1500 < found["ablate_training_tokens_per_second", "0"] < 6000
    assert found["ablate_training_tokens_per_second", "1"] < 1000
    assert found["ablate_training_runs", "waiting"] == 3
    assert found["ablate_training_runs", "finished"] == 1
    assert found["ablate_trials_total", "scored"] == 3
    assert found["ablate_trials_total", "failed"] == 1
    assert 1 < found["ablate_trials_per_second", ""] < 20
    assert found["ablate_merge_gigabytes_per_second", ""] == pytest.approx(4 * 0.4 / 0.5)
    assert found["ablate_merge_seconds_count", ""] == 4
    assert found["ablate_evaluated_tokens_total", ""] == 12000
    assert found["ablate_evaluated_tokens_per_second", ""] == 1500
    assert found["ablate_pool_bytes", ""] == 2e9
    assert found["ablate_evaluators", ""] == 2
    trials.end()
    training.see(snapshot({0: 3000, 1: 500}, finished=5, running=0, waiting=0))
    found = once(lambda now: now.get(("ablate_pool_bytes", "")) == 0)
    assert found["ablate_pool_bytes", ""] == found["ablate_evaluators", ""] == 0
    assert found["ablate_training_tokens_per_second", "0"] == 0


@pytest.mark.usefixtures("cluster")
def test_a_trial_costs_microseconds() -> None:
    meter = TrialMeter(models=5, model_bytes=4, evaluators=2)
    values, count = trial(), 2000
    began = time.perf_counter()
    for _ in range(count):
        meter("search", "trial", values)
    assert (time.perf_counter() - began) / count < 1e-3


def test_a_lane_counts_what_it_trained_and_not_what_was_there_before(tmp_path: Path) -> None:
    first, second = (job(tmp_path, name, steps=10) for name in "ab")
    batch = first.recipe.batch_tokens
    queue = JobQueue([first, second], max_failures=1)
    queue.take(0)
    queue.report(0, 6 * batch)  # gone on from its fifth step: one step was made here
    queue.report(0, 8 * batch)
    assert queue.snapshot().lane_tokens == {0: 3 * batch}
    queue.take(0)  # its group died and came back, three steps earlier
    queue.report(0, 6 * batch)
    queue.report(0, 7 * batch)
    queue.finish(0)
    assert queue.snapshot().lane_tokens == {0: 7 * batch}
    queue.take(0)
    queue.report(0, batch)
    assert queue.snapshot().lane_tokens == {0: 8 * batch}
