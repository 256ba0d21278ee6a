"""Trackers: what lands in MLflow, Weights & Biases and TensorBoard, read back from their files."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.cluster import tracking
from ablate.cluster.tracking import parameters_of, tracked
from ablate.errors import StudyError
from ablate.progress import tell
from ablate.resources import Cluster, load_cluster
from ablate.study import Study
from ablate.train.steplog import StepLog
from ablate.workspace import Workspace

SECRET = "key-" + "0123456789abcdef" * 3
LOSSES = [6.0, 5.5, 5.25, 5.125]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.model_validate(
        {
            "name": "fields of study",
            "workspace": str(tmp_path / "work"),
            "corpus": {"sources": [{"path": "a.txt", "partition": "law"}], "unit_tokens": 1000},
            "tokenizer": {"train": {"vocab_size": 512}},
            "model": {"preset": "tiny"},
            "seed": {"sources": [{"path": "a.txt"}], "tokens": 1000},
            "train": {"learning_rate": 3e-4},
        }
    )


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No address and no mode of this machine's; a key that must not be found anywhere."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setattr(tracking, "SEND_SECONDS", 0.1)
    before = dict(os.environ)
    yield
    assert os.environ.get("WANDB_MODE") == before.get("WANDB_MODE")


def cluster(**trackers: Any) -> Cluster:
    return Cluster.model_validate({"tracking": trackers})


def step(number: int) -> dict[str, Any]:
    return {
        "step": number, "tokens": 256 * number, "loss": LOSSES[number - 1],
        "learning_rate": 1e-3, "grad_norm": 0.5, "tokens_per_second": 1000.0,
    }  # fmt: skip


def write_steps(log: Path, numbers: Sequence[int], after: int = 0) -> None:
    stream = StepLog(log, after)
    for number in numbers:
        stream.write(step(number))
    stream.close()


def trial(objective: float | None, weights: dict[str, float], **values: Any) -> dict[str, Any]:
    return {
        "kind": "proxy", "merge": "linear", "weights": weights, "size": len(weights),
        "members": 2 * len(weights), "objective": objective, "estimate": None, "error": None,
        "losses": {} if objective is None else {"law": objective, "web & code": objective + 1},
        "merge_seconds": 0.1, "evaluate_seconds": 0.2, **values,
    }  # fmt: skip


def run(study: Study, where: Cluster) -> Workspace:
    """Track a run that trains, goes back to a resume state, and scores three mixtures."""
    workspace = Workspace(Path(study.workspace))
    write_steps(workspace.logs / "train-old.jsonl", [1, 2])
    with tracked(study, workspace, where, "run"):
        log = workspace.logs / "train-unit-law-0.jsonl"
        write_steps(log, [1, 2, 3])
        write_steps(log, [3, 4], after=2)
        tell("trial", **trial(5.5, {"law": 0.25, "web": 0.75}))
        tell("trial", **trial(5.0, {"law": 1.0}))
        tell("trial", **trial(None, {"web": 1.0}, error="not finite"))
    return workspace


def no_secret_in(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_nothing_is_opened_where_nothing_is_asked(study: Study) -> None:
    workspace = run(study, Cluster())
    assert not workspace.tracking.exists()


def test_mlflow_gets_steps_trials_and_the_study(study: Study) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    workspace = run(study, cluster(mlflow={}))
    folder = workspace.tracking / "mlflow"
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'fields of study'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == "fields of study run"
    assert mlflow.active_run() is None

    def history(key: str) -> list[tuple[int, float]]:
        points = client.get_metric_history(found.info.run_id, key)
        return sorted((point.step, point.value) for point in points)

    tokens = [256, 512, 768, 1024]
    assert history("train/unit-law-0/loss") == list(zip(tokens, LOSSES, strict=True))
    assert history("train/unit-law-0/tokens_per_second") == [(n, 1000.0) for n in tokens]
    assert not history("train/old/loss")
    assert history("trials/objective") == [(1, 5.5), (2, 5.0)]
    assert history("trials/best") == [(1, 5.5), (2, 5.0), (3, 5.0)]
    assert history("trials/loss/law") == [(1, 5.5), (2, 5.0)]
    assert found.data.params["train.learning_rate"] == "0.0003"
    assert found.data.params["corpus.unit_tokens"] == "1000"
    (table,) = folder.glob("artifacts/**/trials.json")
    assert "0.25 law + 0.75 web" in table.read_text() and "not finite" in table.read_text()
    (text,) = folder.glob("artifacts/**/study.yaml")
    assert yaml.safe_load(text.read_text())["name"] == "fields of study"
    no_secret_in(workspace.root)


def test_mlflow_marks_a_run_that_failed_and_one_that_was_stopped(study: Study) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    workspace = Workspace(Path(study.workspace))
    for error in (StudyError("no"), KeyboardInterrupt()):
        with (
            pytest.raises(type(error)),
            tracked(study, workspace, cluster(mlflow={"experiment": "x"}), "train"),
        ):
            raise error
    database = sqlite3.connect(workspace.tracking / "mlflow" / "mlflow.db")
    states = database.execute("select status from runs order by start_time").fetchall()
    database.close()
    assert states == [("FAILED",), ("KILLED",)]


def test_mlflow_takes_any_name_that_a_study_may_have(study: Study) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    names = ("c++", "C#", "reddit (2019)", "../up", "日本語", "x" * 400)
    tree = study.model_dump(mode="json", by_alias=True, exclude={"evaluate", "units", "search"})
    odd = {
        "evaluate": {"domains": dict.fromkeys(names, "d.txt")},
        "units": {f"{name}!": ["folder"] for name in names},
        "search": {"objectives": {name: {"weighted": {name: 1.0}} for name in names}},
    }
    workspace = Workspace(Path(study.workspace))
    with tracked(Study.model_validate({**tree, **odd}), workspace, cluster(mlflow={}), "run"):
        found = mlflow.get_run(mlflow.active_run().info.run_id).data.params
    for place in ("evaluate.domains", "units", "search.objectives"):
        assert len([key for key in found if key.startswith(f"{place}.")]) >= len(names)


def test_a_run_that_cannot_begin_is_ended(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    workspace = Workspace(Path(study.workspace))

    def refuse(*_: Any, **__: Any) -> None:
        raise mlflow.exceptions.MlflowException("no")

    for _ in range(2):
        with (
            monkeypatch.context() as patch,
            pytest.raises(StudyError, match="must open its run, got MlflowException: no"),
        ):
            patch.setattr(mlflow.MlflowClient, "log_batch", refuse)
            with tracked(study, workspace, cluster(mlflow={}), "run"):
                pytest.fail("the block must not begin")
        assert mlflow.active_run() is None
    with tracked(study, workspace, cluster(mlflow={}), "run"):
        pass


def test_a_packed_database_does_not_say_where_files_go(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    theirs = run(study, cluster(mlflow={}))
    shutil.copytree(theirs.tracking / "mlflow", tmp_path / "packed/tracking/mlflow")
    before = sorted(theirs.tracking.rglob("*"))
    packed = Workspace(tmp_path / "packed")
    elsewhere = re.escape(theirs.tracking.resolve().as_uri())
    with (
        pytest.raises(StudyError, match=f"must keep files in this workspace, got {elsewhere}"),
        tracked(study, packed, cluster(mlflow={}), "run"),
    ):
        pytest.fail("the block must not begin")
    with tracked(study, packed, cluster(mlflow={"experiment": "mine"}), "run"):
        pass
    assert list(packed.tracking.glob("mlflow/artifacts/*/artifacts/study.yaml"))
    assert sorted(theirs.tracking.rglob("*")) == before
    database = sqlite3.connect(packed.tracking / "mlflow/mlflow.db")
    database.execute(
        "create trigger t after insert on runs begin update runs set artifact_uri = "
        f"'{(tmp_path / 'outside').as_uri()}' where run_uuid = new.run_uuid; end"
    )
    database.close()
    with (
        pytest.raises(StudyError, match=r"must keep files in this workspace, got file:.*/outside"),
        tracked(study, packed, cluster(mlflow={"experiment": "mine"}), "run"),
    ):
        pytest.fail("the block must not begin")
    assert not (tmp_path / "outside").exists()


def test_wandb_offline_gets_steps_trials_and_the_study(study: Study) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra 'tracking': wandb")
    workspace = run(study, cluster(wandb={"project": "mixtures"}))
    assert Workspace.open(study.workspace).root == workspace.root  # it holds no links
    wandb.teardown()  # as at the end of a process: its writer writes to the end
    (file,) = workspace.tracking.glob("wandb/wandb/offline-run-*/*.wandb")
    rows, config = wandb_records(file)
    losses = [
        (row["train/unit-law-0/tokens"], row["train/unit-law-0/loss"])
        for row in rows
        if "train/unit-law-0/loss" in row
    ]
    assert losses == list(zip([256, 512, 768, 1024], LOSSES, strict=True))
    trials = [row for row in rows if "trials/size" in row]
    assert [row.get("trials/objective") for row in trials] == [5.5, 5.0, None]
    assert [row["trials/best"] for row in trials] == [5.5, 5.0, 5.0]
    assert trials[0]["trials/loss/law"] == 5.5 and trials[0]["trials/members"] == 4
    assert config["train.learning_rate"] == "0.0003"
    (table,) = workspace.tracking.glob("wandb/wandb/offline-run-*/**/*.table.json")
    assert "0.25 law + 0.75 web" in table.read_text()
    no_secret_in(workspace.root)


def wandb_records(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the logged rows and the configuration of an offline run."""
    from wandb.proto import wandb_internal_pb2

    rows, config = [], {}
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.run.config.update:
            config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("history"):
            items = record.history.item
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows, config


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log: W&B's offline format, after a header of seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_tensorboard_gets_a_run_per_training_and_one_of_trials(
    study: Study, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra 'tracking': tensorboardX")
    where = cluster(tensorboard={"folder": str(tmp_path / "boards")})
    run(study, where)
    again = Workspace(Path(study.workspace))
    with tracked(study, again, where, "run"):
        pass
    first, second = sorted((tmp_path / "boards").glob("fields-of-study-*/*"))
    assert (first.name, second.name) == ("run-1", "run-2")
    assert {place.name for place in first.iterdir()} == {"study", "trials", "unit-law-0"}
    assert {place.name for place in second.iterdir()} == {"study"}
    points, _ = tensorboard_records(first / "unit-law-0")
    assert points["loss"] == list(zip([256, 512, 768, 1024], LOSSES, strict=True))
    points, texts = tensorboard_records(first / "trials")
    assert points["objective"] == [(1, 5.5), (2, 5.0)] and points["size"] == [
        (1, 2),
        (2, 1),
        (3, 1),
    ]
    assert "mixture: 0.25 law + 0.75 web, merge: linear" in texts[0]
    assert "learning_rate: 0.0003" in tensorboard_records(first / "study")[1][0]


def tensorboard_records(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
    """Return points[tag] and the texts of one event file."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.iterdir()
    data, place = file.read_bytes(), 0
    points: dict[str, list[tuple[int, float]]] = {}
    texts = []
    while place < len(data):  # TFRecords: length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[place : place + 8])
        event = Event()
        event.ParseFromString(data[place + 12 : place + 12 + length])
        place += 16 + length
        for value in event.summary.value:
            if value.HasField("simple_value"):
                points.setdefault(value.tag, []).append((event.step, value.simple_value))
            else:
                texts.append(value.tensor.string_val[0].decode())
    return points, texts


@pytest.mark.parametrize("name", ["mlflow", "wandb", "tensorboard"])
def test_a_missing_package_is_said_before_anything_is_done(
    study: Study, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    hidden = {"mlflow", "wandb", "tensorboardX"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n in hidden else found(n, *a)
    )
    workspace = Workspace(Path(study.workspace))
    with (
        pytest.raises(StudyError, match=rf"tracking\.{name} must have the package .*ablate\[track"),
        tracked(study, workspace, cluster(**{name: {}}), "run"),
    ):
        pytest.fail("the block must not begin")
    assert not workspace.root.exists()


def test_a_tracker_that_fails_on_the_way_is_left_out_with_a_note(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    pytest.importorskip("tensorboardX", reason="needs the extra 'tracking': tensorboardX")
    workspace = Workspace(Path(study.workspace))
    with tracked(study, workspace, cluster(mlflow={}, tensorboard={}), "run"):
        database = sqlite3.connect(workspace.tracking / "mlflow" / "mlflow.db")
        database.execute("drop table metrics")
        database.commit()
        database.close()
        write_steps(workspace.logs / "train-unit-law-0.jsonl", [1, 2])
    said = capsys.readouterr().err
    assert said.count("mlflow is left out from here on") == 1
    (board,) = workspace.tracking.glob("tensorboard/*/run-1/unit-law-0")
    assert tensorboard_records(board)[0]["loss"] == [(256, 6.0), (512, 5.5)]


def test_a_server_that_cannot_be_reached_is_one_line_without_its_password(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra 'tracking': mlflow-skinny")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    workspace = Workspace(Path(study.workspace))
    with (
        pytest.raises(StudyError, match=r"tracking\.mlflow must open its run") as raised,
        tracked(study, workspace, cluster(mlflow={}), "run"),
    ):
        pytest.fail("the block must not begin")
    assert SECRET not in str(raised.value) and "\n" not in str(raised.value)


def test_online_without_a_key_is_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra 'tracking': wandb")
    wandb.teardown()  # it keeps the key of a run before
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", os.devnull)
    workspace = Workspace(Path(study.workspace))
    with (
        pytest.raises(StudyError, match=r"tracking\.wandb must open its run.*API key"),
        tracked(study, workspace, cluster(wandb={"mode": "online"}), "run"),
    ):
        pytest.fail("the block must not begin")


def test_a_cluster_file_holds_no_secret_and_no_unknown_key(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    for place, text in [
        ("tracking.mlflow.uri", f"https://me:{SECRET}@host"),
        ("tracking.mlflow.uri", f"https://{SECRET}@host"),
        ("tracking.mlflow.uri", f"https://host?token={SECRET}"),
        ("tracking.mlflow.uri", f"me:{SECRET}@host:5000"),
        ("tracking.mlflow.experiment", SECRET),  # that of WANDB_API_KEY
        ("tracking.wandb.entity", SECRET),
        ("address", f"me:{SECRET}@host:6379"),
        ("deepspeed.a.b", f"s3://{SECRET}@bucket/x"),
    ]:
        tree: Any = text
        for name in reversed(place.split(".")):
            tree = {name: tree}
        file.write_text(yaml.safe_dump(tree))
        with pytest.raises(StudyError, match=f": {re.escape(place)} must hold no user") as raised:
            load_cluster(file)
        assert SECRET not in str(raised.value) and "\n" not in str(raised.value)
    file.write_text("tracking: {mlflow: {uri: /data/me@lab/runs}}\n")
    assert load_cluster(file).tracking.mlflow is not None
    with pytest.raises(StudyError, match=r"wandb must be a known key|mode"):
        load_cluster(None, ["tracking.wandb.mode=on"])
    with pytest.raises(StudyError, match=r"tracking\.wandb\.api_key must be a known key"):
        load_cluster(None, ["tracking.wandb.api_key=x"])


def test_parameters_are_the_studys_keys(study: Study) -> None:
    found = parameters_of(study)
    assert found["name"] == "fields of study" and found["train.learning_rate"] == "0.0003"
    assert all(
        isinstance(value, str) and re.fullmatch(r"[\w.]+", key) for key, value in found.items()
    )


def test_trackers_are_imported_only_where_they_are_asked_for(study: Study) -> None:
    code = (
        "import sys, ablate.engine; "
        "sys.exit(any(name in sys.modules for name in ('mlflow', 'wandb', 'tensorboardX.writer')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
