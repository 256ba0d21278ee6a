"""The small study on s3://, as its user meets it: the numbers are those of a folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ablate.stores.objects import Objects
from tests.faults.disturbing import REPOSITORY, SECONDS, numbers
from tests.small_study import make_study

pytestmark = pytest.mark.slow
MORE_STEPS = ("train.batch_tokens=256",)


class Driver:
    """`ablate` in processes of one machine: its mirrors are in a folder of its own."""

    def __init__(self, study: Path, uri: str, machine: Path) -> None:
        self.study, self.uri, self.machine = study, uri, machine

    def start(self, verb: str, *words: str) -> subprocess.Popen[str]:
        cluster = self.study.parent / "cluster.yaml"
        cluster.write_text("cpus: 2\ntrain: {checkpoint_seconds: 0.3}\n")
        file = ["--cluster", str(cluster)] if verb in ("run", "score") else []
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "ablate", verb, str(self.study), *file),
                *(f"workspace={self.uri}", *MORE_STEPS, *words),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "ABLATE_MIRRORS": str(self.machine)},
            cwd=self.study.parent,
            start_new_session=True,
        )

    def __call__(self, verb: str, *words: str, code: int = 0) -> tuple[str, str]:
        process = self.start(verb, *words)
        out, errors = process.communicate(timeout=900)
        assert process.returncode == code, errors
        return out, errors


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study")) / "study.yaml"


@pytest.fixture(scope="module")
def in_a_folder(small: Path) -> dict[str, Any]:
    """What the same study gives in a folder."""
    work = small.parent / "work"
    Driver(small, str(work), small.parent / "unused")("run")
    return numbers(work)


def in_the_store(uri: str) -> dict[str, Any]:
    objects = Objects(uri)
    table = pq.read_table(io.BytesIO(objects.read("trials.parquet") or b"")).to_pylist()
    weights = {
        name.split("/")[1]: json.loads(objects.read(name) or b"")["digest"]
        for name in objects.find("models")
        if name.endswith("/training.json")
    }
    return {
        "rows": [{k: v for k, v in row.items() if k not in SECONDS} for row in table],
        "weights": weights,
    }


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.2)


def test_a_run_a_second_one_and_the_other_verbs(
    uri: str, small: Path, in_a_folder: dict[str, Any], tmp_path: Path
) -> None:
    driver = Driver(small, uri, tmp_path / "one")
    driver("run")
    assert in_the_store(uri) == in_a_folder
    before = Objects(uri).find()
    assert not [name for name in before if "/." in name or name.startswith(".drivers")]
    logs = ("prepare", "train", "search", "report")
    assert {f"logs/{name}.jsonl" for name in logs} <= before.keys()
    shutil.rmtree(tmp_path / "one")  # another machine
    _, errors = driver("run")
    assert "train" not in errors and "pool" not in errors, errors
    after = Objects(uri).find()
    kinds = (".safetensors", ".arrow", "corpus.json", "training.json", "trials.jsonl")
    assert {n: s for n, s in before.items() if n.endswith(kinds)} == {
        n: s for n, s in after.items() if n.endswith(kinds)
    }
    shown = json.loads(driver("status", "--json")[0])
    assert shown["workspace"] == uri and shown["units_trained"] == shown["units"] == 4
    row = json.loads(driver("score", "--mixture", "python, headers", "--json")[0])
    assert row["objective"] > 0
    driver("export", "--mixture", "best", "--to", str(tmp_path / "best"))
    assert (tmp_path / "best/model.safetensors").is_file()
    Objects(uri).write("models/unit-left-0-0123456789ab/model.safetensors", bytes(1000))
    assert "in 1 places" in driver("clean")[0]
    assert "models/unit-left-0-0123456789ab/model.safetensors" not in Objects(uri).find()
    assert in_the_store(uri) == in_a_folder


def test_a_driver_killed_in_its_search_and_another_machine_goes_on(
    uri: str, small: Path, in_a_folder: dict[str, Any], tmp_path: Path
) -> None:
    killed = Driver(small, uri, tmp_path / "one").start("run")
    wait_for(lambda: b"\n" in (Objects(uri).read("trials.jsonl") or b""), killed)
    os.killpg(killed.pid, signal.SIGSTOP)  # or it could be done before the other one has started
    trained = {n: s for n, s in Objects(uri).find("models").items() if n.endswith("s")}
    other = Driver(small, uri, tmp_path / "two")
    _, refused = other("run", code=2)
    assert f"{uri} is in use by process {killed.pid}" in refused
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(65)  # its lease runs out
    other("run")
    assert in_the_store(uri) == in_a_folder
    assert trained == {n: s for n, s in Objects(uri).find("models").items() if n in trained}


def test_a_bucket_that_does_not_exist(uri: str, small: Path, tmp_path: Path) -> None:
    driver = Driver(small, "s3://nosuchbucket/x", tmp_path / "one")
    _, errors = driver("run", code=2)
    assert errors.count("\n") == 1 and "a bucket that exists" in errors
