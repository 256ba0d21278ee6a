"""Where the work runs: the cluster file. It never changes a result or a fingerprint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ablate.errors import StudyError, did_you_mean
from ablate.harmless import without_secrets
from ablate.settings import (
    MAX_FILE_BYTES,
    Float,
    Int,
    Plain,
    Settings,
    apply_overrides,
    build,
    cut,
    read_yaml,
    shortened,
    texts_of,
)
from ablate.workspace import read_small

RESULT_KEYS = frozenset(
    {
        "amp", "bf16", "data_types", "fp16", "gradient_accumulation_steps", "gradient_clipping",
        "optimizer", "prescale_gradients", "gradient_predivide_factor", "scheduler",
        "sparse_attention", "train_batch_size", "train_micro_batch_size_per_gpu",
        "compression_training", "data_efficiency", "curriculum_learning", "progressive_layer_drop",
        "communication_data_type", "seq_parallel_communication_data_type", "torch_autocast",
        "gradient_allreduce_op", "elasticity", "eigenvalue", "quantize_training",
    }
)  # fmt: skip
PLACEMENT_KEYS = frozenset(
    {
        "zero_optimization", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
        "activation_checkpointing", "aio", "checkpoint", "comms_logger", "compile", "csv_monitor",
        "comet", "disable_allgather", "disable_python_gc", "dump_state", "flops_profiler",
        "log_level", "memory_breakdown", "nebula", "steps_per_print", "tensorboard", "timers",
        "wall_clock_breakdown", "wandb",
    }
)  # fmt: skip
LOGIN = re.compile(r"[^/\s]*@")  # in an address without its scheme


class TrainResources(Settings):
    """One training run, and how many go on at once."""

    workers_per_run: Int = Field(1, ge=1, description="Ray Train workers of one run.")
    cpus_per_worker: Float = Field(1, gt=0, description="CPUs that Ray reserves for a worker.")
    gpus_per_worker: Float = Field(0, ge=0, description="GPUs that Ray reserves for a worker.")
    threads_per_worker: Int = Field(1, ge=1, description="Torch threads of a worker.")
    concurrent_runs: Int | None = Field(
        None, ge=1, description="Runs at once; null = as many as the cluster holds."
    )
    micro_batch_sequences: Int | None = Field(
        None, ge=1, description="Sequences in one pass of one worker; null = 8 at most."
    )
    checkpoint_seconds: Float = Field(
        120, gt=0, description="A resume point at least this often (counted in steps)."
    )
    max_failures: Int = Field(3, ge=0, description="Restarts of a run after lost workers.")


class TrialResources(Settings):
    """One evaluator: it holds a model and scores one mixture after another."""

    cpus: Float = Field(1, gt=0, description="CPUs that Ray reserves for an evaluator.")
    gpus: Float = Field(0, ge=0, description="GPUs; 0.25 = four evaluators on one GPU.")
    threads: Int = Field(1, ge=1, description="Torch threads of an evaluator.")
    concurrent: Int | None = Field(
        None, ge=1, description="Evaluators at once; null = as many as the cluster holds."
    )
    batch_tokens: Int | None = Field(
        None, ge=1, description="Tokens in one forward pass; null = what measured best."
    )
    retries: Int = Field(3, ge=0, description="Further tries of a trial whose process died.")
    timeout_seconds: Float = Field(
        3600, gt=0, description="A trial that takes longer hangs: its process is ended."
    )

    @property
    def whole_gpus(self) -> int:
        """Return the GPUs of a task that shares none: gradients take more memory than scoring."""
        return math.ceil(self.gpus)


class PrepareResources(Settings):
    """Tasks that read and tokenize."""

    cpus: Float = Field(1, gt=0, description="CPUs that Ray reserves for a task.")


class NodeResources(Settings):
    """What a node is, for `ablate plan` only: no run reads it. null = as this machine."""

    count: Int = Field(1, ge=1, le=1_000_000, description="Nodes, all alike.")
    cpus: Int | None = Field(None, ge=1, le=10_000, description="CPUs of a node; null = as here.")
    gpus: Int | None = Field(None, ge=0, le=1_000, description="GPUs of a node; null = as here.")
    memory_gb: Float | None = Field(None, gt=0, description="Memory, GB; null = as here.")
    gpu_memory_gb: Float = Field(80, gt=0, description="Memory of one GPU, GB.")
    object_store_gb: Float | None = Field(
        None,
        gt=0,
        description="Object store of a node, GB; null = object_store_gb, or Ray's choice.",
    )
    cpu_gflops: Float | None = Field(
        None, gt=0, description="Sustained GFLOP/s of one CPU thread; null = measured here."
    )
    gpu_tflops: Float = Field(
        400, gt=0, description="Sustained TFLOP/s of one GPU in training and scoring."
    )
    memory_gb_per_second: Float | None = Field(
        None, gt=0, description="GB/s of all merges of a node together; null = measured here."
    )
    gpu_link_gb_per_second: Float = Field(
        25, gt=0, description="GB/s from a node's memory to each of its GPUs."
    )
    network_gbps: Float = Field(10, gt=0, description="Gbit/s of a node's network, each way.")
    storage_gb_per_second: Float = Field(
        1, gt=0, description="GB/s at which one node reads the workspace, or what spilled."
    )
    price_per_hour: Float | None = Field(
        None, ge=0, description="Price of one node for an hour, any currency; null = no cost."
    )


class MlflowTracking(Settings):
    """An MLflow run for each verb. Its secrets are MLFLOW_TRACKING_TOKEN or _USERNAME, _PASSWORD."""

    uri: str | None = Field(
        None, description="Server or store; null = MLFLOW_TRACKING_URI, else the workspace."
    )
    experiment: str | None = Field(None, description="Its name; null = the study's.")


class WandbTracking(Settings):
    """A Weights & Biases run for each verb. Its secret is WANDB_API_KEY, or `wandb login`'s."""

    mode: Literal["offline", "online"] = Field(
        "offline", description="offline = files in the workspace, for `wandb sync`; online = sent."
    )
    project: str = Field("ablate", min_length=1, description="Its project.")
    entity: str | None = Field(None, description="User or team; null = the account's own.")


class TensorboardTracking(Settings):
    """TensorBoard's event files for each verb."""

    folder: str | None = Field(None, description="Where; null = the workspace's own folder.")


class Tracking(Settings):
    """Where a run can be followed beside its logs: nowhere unless named."""

    mlflow: MlflowTracking | None = Field(None, description="MLflow; {} = as it is by default.")
    wandb: WandbTracking | None = Field(None, description="Weights & Biases.")
    tensorboard: TensorboardTracking | None = Field(None, description="TensorBoard.")


class Cluster(Settings):
    """A Ray cluster and its shares."""

    address: str | None = Field(
        None, description="null = Ray on this machine; 'auto' = the one that runs here; host:port."
    )
    cpus: Int | None = Field(None, ge=1, description="CPUs of Ray on this machine; null = all.")
    gpus: Int | None = Field(None, ge=0, description="GPUs of Ray on this machine; null = all.")
    object_store_gb: Float | None = Field(
        None, gt=0, description="Object store of Ray on this machine, GB; null = Ray's choice."
    )
    wait_minutes: Float = Field(
        0, ge=0, description="Minutes to wait for nodes that join by themselves; 0 = refuse."
    )
    scratch: str | None = Field(
        None, description="Folder for what is thrown away (Ray's, Tune's); null = the system's."
    )
    prepare: PrepareResources = Field(PrepareResources(), description="Reading and tokenizing.")
    train: TrainResources = Field(TrainResources(), description="Training runs.")
    trial: TrialResources = Field(TrialResources(), description="Evaluators.")
    tracking: Tracking = Field(Tracking(), description="Trackers of training and trials.")
    deepspeed: Plain = Field(
        {"zero_optimization": {"stage": 0}},
        description="DeepSpeed JSON (or the path of one): placement only, e.g. ZeRO, offload.",
    )
    nodes: NodeResources = Field(
        NodeResources(), description="What a node is: for `plan` only; no run reads it."
    )

    @field_validator("address")
    @classmethod
    def _joined(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:  # Ray Client: Tune's own objects cannot go through
            raise ValueError(
                f"must be auto or host:port, got {shortened(value)}: no search runs through Ray "
                "Client; use `ablate submit --address http://HEAD:8265`, or auto on a node of the "
                "cluster"
            )
        return value

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        addresses = {"address", "tracking.mlflow.uri"}
        for key, text in texts_of(self.model_dump(mode="json")):
            login = key in addresses and LOGIN.match(text)
            if login or without_secrets(text) != text:
                raise ValueError(
                    f"{key} must hold no user, password or token, got one: cluster files are "
                    "copied and sent; keep secrets in the environment (MLFLOW_TRACKING_URI or "
                    "MLFLOW_TRACKING_TOKEN, WANDB_API_KEY)"
                )
        return self

    @model_validator(mode="after")
    def _placement_only(self) -> Self:
        wrong = sorted(RESULT_KEYS & set(self.deepspeed))
        if wrong:
            raise ValueError(
                f"deepspeed must hold placement only, got {wrong}: such settings change results "
                "and belong to the study's train section"
            )
        for key in sorted(set(self.deepspeed) - PLACEMENT_KEYS):
            raise ValueError(
                f"deepspeed.{key} must be a key of DeepSpeed's configuration, got '{key}'; "
                f"{did_you_mean(key, PLACEMENT_KEYS)}"
            )
        return self


def load_cluster(path: str | Path | None, overrides: Iterable[str] = ()) -> Cluster:
    """Return the cluster file at `path`, or the settings for this machine when it is None.

    `deepspeed` may be the path of a JSON file, taken from the cluster file's folder.
    Raises StudyError in one line.
    """
    if path is None:
        return build(Cluster, apply_overrides({}, overrides), "cluster settings")
    file = Path(path)
    tree = apply_overrides(read_yaml(file), overrides)
    if isinstance(tree.get("deepspeed"), str):
        tree["deepspeed"] = _read_deepspeed(file.parent / tree["deepspeed"])
    return build(Cluster, tree, str(file))


def _read_deepspeed(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_small(path, MAX_FILE_BYTES))
    except FileNotFoundError as error:
        raise StudyError(
            f"deepspeed must name a JSON file, got {cut(str(path))}; no such file"
        ) from error
    except OSError as error:
        raise StudyError(
            f"deepspeed must name a file that can be read, got '{str(path)[:80]}': {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"deepspeed must be JSON: {cut(str(path))}: {error}; mend that line"
        ) from error
    if not isinstance(value, dict):
        raise StudyError(f"deepspeed must be a JSON object, got {type(value).__name__} in {path}")
    return value
