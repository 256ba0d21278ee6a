"""MLflow, Weights & Biases and TensorBoard: one run per verb, opened before anything is trained.

Ray sets up the first two (`setup_mlflow`, `setup_wandb`). Ray Tune's logger callbacks are not used:
they open a run for every trial (an event file, a round of requests, an actor that starts a
process), which takes longer than a trial, and they log Tune's own bookkeeping; here a trial is a
point and a row. Ray has no TensorBoard integration outside of Tune, so tensorboardX is used plainly.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from ablate.errors import StudyError
from ablate.harmless import without_secrets
from ablate.resources import MlflowTracking, TensorboardTracking, Tracking, WandbTracking
from ablate.workspace import slug

STEP_VALUES = ("loss", "learning_rate", "grad_norm", "tokens_per_second")
MLFLOW_VALUE_LENGTH = 500
MLFLOW_BATCH = 900  # of at most 1000 metrics in a request
MLFLOW_PARAMS = 90  # of at most 100
MOST_WRITERS = 32  # TensorBoard files open at once
CREDENTIALS = re.compile(r"//[^/\s]*@")
"""Also of an address without its scheme, as clients tell them."""
PRIVATE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "WANDB_ERROR_REPORTING": "false",
}

Step = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is tracked: a study's name, its text and its keys, and the verb."""

    study: str
    verb: str
    text: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A trial: its number in this run, `values` as numbers, `words` (mixture, merge, kind)."""

    number: int
    values: Mapping[str, float]
    words: Mapping[str, str | None]


class Tracker(Protocol):
    """One open run; `errors` are what its package raises when it fails."""

    errors: tuple[type[Exception], ...]

    def steps(self, run: str, records: Sequence[Step]) -> None:
        """Log steps of a training run against tokens."""

    def trials(self, rows: Sequence[Row]) -> None:
        """Log trials against their number."""

    def end(self, rows: Sequence[Row], outcome: str) -> None:
        """Log the table of all trials and close; `outcome` is done, failed or stopped.

        Called by the thread that opened the run.
        """


class Mlflow:
    """An MLflow run: metrics `train/<run>/<value>` at a step of tokens, `trials/<value>`."""

    errors: tuple[type[Exception], ...]

    def __init__(self, settings: MlflowTracking, subject: Subject, folder: Path) -> None:
        from ray.air.integrations.mlflow import setup_mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        import mlflow
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self.errors = (MlflowException, OSError)
        self._metric, self._mlflow = Metric, mlflow
        uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
        database: Path | None = None
        artifacts: str | None = None
        with _said("mlflow", (*self.errors, sqlite3.Error)), ExitStack() as undo:
            if uri is None:
                folder.mkdir(parents=True, exist_ok=True)
                database = folder.resolve() / "mlflow.db"
                uri = f"sqlite:///{database}"
                artifacts = (folder.resolve() / "artifacts").as_uri()
            if mlflow.active_run() is not None:
                raise StudyError(
                    "tracking.mlflow must open a run of its own, got one that is open in this "
                    "process; call mlflow.end_run() first"
                )
            with _environment(MLFLOW_TRACKING_URI=uri):  # which MLflow sets: it is not the user's
                setup_mlflow(
                    tracking_uri=uri,
                    experiment_name=settings.experiment or subject.study,
                    run_name=f"{subject.study} {subject.verb}",
                    artifact_location=artifacts,
                    create_experiment_if_not_exists=True,
                    tags={"ablate.verb": subject.verb},
                )
            undo.callback(mlflow.end_run, "FAILED")
            self._run = mlflow.active_run().info.run_id
            self._client = MlflowClient(tracking_uri=uri)
            if database is not None:
                self._require_own_files(database, f"{artifacts}/{self._run}/artifacts")
            # Right after that check, and before what is written to the database changes it.
            self._client.log_text(self._run, subject.text, "study.yaml")
            params = [
                Param(name, value[:MLFLOW_VALUE_LENGTH])
                for name, value in subject.parameters.items()
            ]
            for first in range(0, len(params), MLFLOW_PARAMS):
                self._client.log_batch(self._run, params=params[first : first + MLFLOW_PARAMS])
            undo.pop_all()

    def _require_own_files(self, database: Path, place: str) -> None:
        """Refuse a database by which the run's files go elsewhere: who packed it chose where."""
        with closing(sqlite3.connect(database)) as connection:
            kinds = connection.execute("select type from sqlite_master where name = 'runs'")
            kind = kinds.fetchone()[0]  # a view could say another place at every look
        found = self._client.get_run(self._run).info.artifact_uri
        if kind != "table" or found != place:
            raise StudyError(
                f"tracking.mlflow must keep files in this workspace, got {found} (a {kind}) from "
                f"{database}, which comes from elsewhere; remove it, or name another experiment"
            )

    def steps(self, run: str, records: Sequence[Step]) -> None:
        self._log(
            (f"train/{run}/{name}", record[name], record["tokens"])
            for record in records
            for name in STEP_VALUES
        )

    def trials(self, rows: Sequence[Row]) -> None:
        self._log(
            (f"trials/{name}", value, row.number)
            for row in rows
            for name, value in row.values.items()
        )

    def _log(self, points: Iterator[tuple[str, float, int]]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(key, value, now, step) for key, value, step in points]
        for first in range(0, len(metrics), MLFLOW_BATCH):
            self._client.log_batch(self._run, metrics=metrics[first : first + MLFLOW_BATCH])

    def end(self, rows: Sequence[Row], outcome: str) -> None:
        try:
            if rows:
                self._client.log_table(self._run, as_table(rows), "trials.json")
        finally:
            status = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}[outcome]
            self._mlflow.end_run(status=status)


class Wandb:
    """A Weights & Biases run: `train/<run>/*` over its tokens, `trials/*` over their number."""

    errors: tuple[type[Exception], ...]

    def __init__(self, settings: WandbTracking, subject: Subject, folder: Path) -> None:
        import wandb
        from ray.air.integrations.wandb import setup_wandb

        self.errors = (wandb.errors.Error, OSError)
        self._wandb = wandb
        self._known: set[str] = set()
        with _said("wandb", (*self.errors, ValueError)), _environment(WANDB_MODE=settings.mode):
            folder.mkdir(parents=True, exist_ok=True)
            self._run = setup_wandb(
                config={**subject.parameters, "study.yaml": subject.text},
                mode=settings.mode,
                project=settings.project,
                entity=settings.entity,
                group=subject.study,
                name=f"{subject.study} {subject.verb}",
                job_type=subject.verb,
                dir=str(folder),
                reinit="finish_previous",
                resume=None,
                # Results have standard output to themselves; no host, command or code is told.
                settings=wandb.Settings(
                    console="off",
                    symlink=False,
                    silent=True,
                    disable_git=True,
                    save_code=False,
                    x_disable_meta=True,
                    x_disable_stats=True,
                ),
            )
            for path in Path(self._run.dir).parent.rglob("*"):
                if path.is_symlink():  # to a log of W&B's own: a workspace holds no links
                    path.unlink()
            self._run.define_metric("trials/*", step_metric="trials/number")

    def steps(self, run: str, records: Sequence[Step]) -> None:
        place = f"train/{run}"
        if run not in self._known:
            self._known.add(run)
            self._run.define_metric(f"{place}/*", step_metric=f"{place}/tokens")
        for record in records:
            self._run.log({f"{place}/{name}": record[name] for name in ("tokens", *STEP_VALUES)})

    def trials(self, rows: Sequence[Row]) -> None:
        for row in rows:
            values = {f"trials/{name}": value for name, value in row.values.items()}
            self._run.log({"trials/number": row.number, **values})

    def end(self, rows: Sequence[Row], outcome: str) -> None:
        if rows:
            table = as_table(rows)
            data = [list(row) for row in zip(*table.values(), strict=True)]
            shown = self._wandb.Table(columns=list(table), data=data, allow_mixed_types=True)
            self._run.log({"trials/table": shown})
        self._run.finish(exit_code=0 if outcome == "done" else 1)


class Tensorboard:
    """Event files: a TensorBoard run for each training run, so that curves lie over each other."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, settings: TensorboardTracking, subject: Subject, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter
        self._writers: dict[str, Any] = {}
        root = (Path(settings.folder) if settings.folder else folder) / slug(subject.study)
        with _said("tensorboard", self.errors):
            # Of its own: curves of two runs in one folder would be drawn as one.
            self._root = next(
                place
                for number in count(1)
                if not (place := root / f"{subject.verb}-{number}").exists()
            )
            self._root.mkdir(parents=True)
            study = self._open("study")
            study.add_text("study.yaml", f"```\n{subject.text}\n```", 0)
            study.flush()

    def _open(self, run: str) -> Any:
        if run not in self._writers:
            if len(self._writers) >= MOST_WRITERS:
                self._writers.pop(next(iter(self._writers))).close()
            self._writers[run] = self._writer(str(self._root / run))
        return self._writers[run]

    def steps(self, run: str, records: Sequence[Step]) -> None:
        writer = self._open(run)
        for record in records:
            for name in STEP_VALUES:
                writer.add_scalar(name, record[name], record["tokens"])
        writer.flush()

    def trials(self, rows: Sequence[Row]) -> None:
        writer = self._open("trials")
        for row in rows:
            for name, value in row.values.items():
                writer.add_scalar(name, value, row.number)
            words = ", ".join(f"{key}: {text}" for key, text in row.words.items() if text)
            writer.add_text("mixture", words, row.number)
        writer.flush()

    def end(self, rows: Sequence[Row], outcome: str) -> None:
        for writer in self._writers.values():
            writer.close()


TRACKERS: dict[str, tuple[str, Callable[[Any, Subject, Path], Tracker]]] = {
    "mlflow": ("mlflow", Mlflow),
    "wandb": ("wandb", Wandb),
    "tensorboard": ("tensorboardX", Tensorboard),
}


def open_trackers(tracking: Tracking, subject: Subject, folder: Path) -> dict[str, Tracker]:
    """Return the trackers that are asked for, each with an open run; local files below `folder`.

    Raises StudyError when a package is missing, or a run cannot be opened: before any work.
    """
    asked = {name: value for name in TRACKERS if (value := getattr(tracking, name)) is not None}
    for name in asked:
        package, _ = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise StudyError(
                f"tracking.{name} must have the package {package}, got none installed; pip install "
                f"'ablate[tracking]', or take tracking.{name} out of the cluster file"
            )
    for name, value in PRIVATE.items() if asked else ():
        os.environ.setdefault(name, value)
    opened: dict[str, Tracker] = {}
    try:
        for name, settings in asked.items():
            opened[name] = TRACKERS[name][1](settings, subject, folder / name)
    except StudyError:
        for tracker in opened.values():
            tracker.end((), "failed")
        raise
    return opened


def as_table(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return trials as columns; None where a trial lacks a value."""
    found = [{"trial": row.number, **row.words, **row.values} for row in rows]
    columns = dict.fromkeys(name for row in found for name in row)
    return {name: [row.get(name) for row in found] for name in columns}


def in_short(error: Exception) -> str:
    """Return an error as one line that holds no secret."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return without_secrets(CREDENTIALS.sub("//***@", line))[:500]


@contextmanager
def _said(name: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise StudyError(
            f"tracking.{name} must open its run, got {in_short(error)}; mend it, or take "
            f"tracking.{name} out of the cluster file"
        ) from error


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
