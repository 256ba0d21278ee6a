"""gpu-cluster.yaml asks for what the nodes of the other files have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablate.resources import Cluster, load_cluster

FOLDER = Path(__file__).parents[2] / "ray_configs"
UNITS = {"Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS.get(unit, 1)


def kubernetes() -> dict[str, float]:
    spec = yaml.safe_load((FOLDER / "kuberay" / "raycluster.yaml").read_text())["spec"]
    (group,) = spec["workerGroupSpecs"]
    pod = group["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    (shm,) = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if "emptyDir" in v]
    return {
        "cpus": float(limits["cpu"]),
        "gpus": float(limits["nvidia.com/gpu"]),
        "memory": quantity(limits["memory"]),
        "shm": quantity(shm),
        "store": float(group["rayStartParams"]["object-store-memory"]),
        "nodes": group["minReplicas"],
    }


def aws() -> dict[str, float]:
    config: dict[str, Any] = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    gpu = config["available_node_types"]["gpu"]
    (start,) = [c for c in config["worker_start_ray_commands"] if "ray start" in c]
    store = re.search(r"--object-store-memory=(\d+)", start)
    assert store is not None and gpu["node_config"]["InstanceType"] == "p4d.24xlarge"
    memory = 1152 * 2**30
    return {
        "cpus": gpu["resources"]["CPU"],
        "gpus": gpu["resources"]["GPU"],
        "memory": memory,
        "shm": memory / 2,  # Linux's default
        "store": float(store[1]),
        "nodes": gpu["min_workers"],
    }


def slurm() -> dict[str, float]:
    text = (FOLDER / "slurm.sbatch").read_text()

    def number(pattern: str) -> float:
        return float(re.search(pattern, text)[1])  # type: ignore[index]

    return {
        "cpus": number(r"#SBATCH --cpus-per-task=(\d+)"),
        "gpus": number(r"#SBATCH --gpus-per-node=(\d+)"),
        "memory": float("inf"),  # all of it
        "shm": float("inf"),
        "store": number(r"STORE_BYTES:-(\d+)"),
        "nodes": number(r"#SBATCH --nodes=(\d+)"),
    }


def runs_on(node: dict[str, float], cluster: Cluster) -> float:
    train = cluster.train
    workers = min(node["cpus"] / train.cpus_per_worker, node["gpus"] / train.gpus_per_worker)
    return int(workers) / train.workers_per_run


@pytest.mark.parametrize("node", [kubernetes(), aws(), slurm()], ids=["kuberay", "aws", "slurm"])
def test_a_node_is_used_whole(node: dict[str, float]) -> None:
    """All GPUs train, in whole groups inside a node; then all evaluate; the CPUs suffice."""
    cluster = load_cluster(FOLDER / "gpu-cluster.yaml")
    train, trial = cluster.train, cluster.trial
    assert cluster.address == "auto" and node["nodes"] >= 1
    assert train.workers_per_run * train.gpus_per_worker <= node["gpus"]
    assert runs_on(node, cluster) == node["gpus"] / train.workers_per_run == 2
    evaluators = node["gpus"] / trial.gpus
    assert evaluators == int(evaluators) == 16
    assert evaluators * trial.cpus <= node["cpus"]
    assert train.threads_per_worker <= train.cpus_per_worker and trial.threads <= trial.cpus


@pytest.mark.parametrize("node", [kubernetes(), aws(), slurm()], ids=["kuberay", "aws", "slurm"])
def test_the_object_store_fits_into_shared_memory_and_half_the_memory(
    node: dict[str, float],
) -> None:
    assert node["store"] < node["shm"]
    assert node["store"] <= node["memory"] / 2


def test_the_head_s_store_fits_too() -> None:
    head = yaml.safe_load((FOLDER / "kuberay" / "raycluster.yaml").read_text())["spec"][
        "headGroupSpec"
    ]
    (shm,) = [
        v["emptyDir"]["sizeLimit"] for v in head["template"]["spec"]["volumes"] if "emptyDir" in v
    ]
    limits = head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(head["rayStartParams"]["object-store-memory"]) < quantity(shm)
    assert quantity(shm) <= quantity(limits["memory"]) / 2


def test_one_node_s_file_fits_one_node() -> None:
    cluster = load_cluster(FOLDER / "gpu-node.yaml")
    assert 8 % cluster.train.workers_per_run == 0
    assert cluster.train.workers_per_run * cluster.train.gpus_per_worker <= 8
