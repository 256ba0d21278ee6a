"""The files for --cluster and the DeepSpeed JSON beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from explained import unexplained
from pydantic import BaseModel

from ablate.errors import StudyError
from ablate.resources import Cluster, load_cluster
from ablate.train.deepspeed_config import check_stage, deepspeed_config
from ablate.train.job import Placement
from ablate.train.recipe import Recipe, check_batch

FOLDER = Path(__file__).parents[2] / "ray_configs"
CLUSTER_FILES = ["local.yaml", "gpu-node.yaml", "gpu-cluster.yaml"]
STAGES = {"zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3, "zero3-offload": 3}
RECIPE = Recipe(
    steps=10, batch_tokens=65_536, sequence_length=1024, peak=1e-3, schedule="constant",
    warmup_steps=0, decay_steps=0, final_share=0.1, weight_decay=0.1, betas=(0.9, 0.95),
    epsilon=1e-8, clip=1.0, precision="bf16", carry_moments=False, rng_seed=0,
)  # fmt: skip


def keys(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """Yield every key of a settings model, as `train.cpus_per_worker`."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{place}{name}.")
        else:
            yield f"{place}{name}"


def written(tree: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from written(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_a_cluster_file_has_every_key_and_explains_it(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert sorted(written(yaml.safe_load(text))) == sorted(keys(Cluster))
    assert unexplained(text) == []


@pytest.mark.parametrize("name", CLUSTER_FILES)
def test_a_cluster_file_loads_with_its_deepspeed_json(name: str) -> None:
    cluster = load_cluster(FOLDER / name)
    named = yaml.safe_load((FOLDER / name).read_text())["deepspeed"]
    assert cluster.deepspeed == json.loads((FOLDER / named).read_text())
    # A batch of the usual size divides by the workers.
    assert check_batch(RECIPE, cluster.train).workers == cluster.train.workers_per_run


def test_local_is_what_no_cluster_file_means() -> None:
    assert load_cluster(FOLDER / "local.yaml") == load_cluster(
        None, ["gpus=0", "trial.batch_tokens=4096"]
    )


def test_every_deepspeed_json_is_known() -> None:
    assert {file.stem for file in (FOLDER / "deepspeed").iterdir()} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_deepspeed_accepts_its_json(name: str, precision: str, tmp_path: Path) -> None:
    """DeepSpeed's own class reads what a worker would give it; an unknown key would be refused."""
    from deepspeed.runtime.config import DeepSpeedConfig

    file = tmp_path / "cluster.yaml"
    file.write_text(f"deepspeed: {FOLDER / 'deepspeed' / name}.json\n")
    cluster = load_cluster(file)
    assert check_stage(cluster.deepspeed) == STAGES[name]
    recipe = Recipe(**{**vars(RECIPE), "precision": precision})
    batch = check_batch(recipe, cluster.train)
    config = deepspeed_config(recipe, batch, Placement.of(cluster))
    accepted = DeepSpeedConfig(config)
    # Stage 0 in bf16 runs as stage 1: the same sums.
    assert accepted.zero_optimization_stage == max(STAGES[name], int(precision == "bf16"))
    assert (accepted.zero_config.offload_optimizer is not None) == name.endswith("offload")
    config["zero_optimization"]["stage_3"] = 1
    with pytest.raises(ValueError, match="stage_3"):
        DeepSpeedConfig(config)


def test_other_keys_are_none_of_deepspeeds() -> None:
    with pytest.raises(StudyError, match="did you mean 'zero_optimization'"):
        load_cluster(None, ["deepspeed={zero_optimisation: {stage: 1}}"])
    with pytest.raises(StudyError, match="belong to the study's train section"):
        load_cluster(None, ["deepspeed={communication_data_type: bf16}"])


def test_every_deepspeed_key_is_explained() -> None:
    """JSON has no comments: the README explains its keys."""
    told = set(re.findall(r"`([a-z_0-9]+)`", (FOLDER / "README.md").read_text()))
    for name in STAGES:
        tree = json.loads((FOLDER / "deepspeed" / f"{name}.json").read_text())
        used = {part for key in written(tree) for part in key.split(".")}
        assert used - {"device", "pin_memory"} <= told, name


def test_the_launchers_file_is_no_cluster_file() -> None:
    with pytest.raises(StudyError, match="cluster_name"):
        load_cluster(FOLDER / "aws.yaml")


def test_comments_are_looked_for_where_they_belong() -> None:
    assert unexplained("a: 1  # why\n# why\nb: 2\nc: 3\n") == ["c: 3"]
    assert unexplained("# why\n- >-\n  one:\n  two\n- three\n") == ["- three"]
    assert unexplained("a:  # why\n  - one\n  - b:\n      c: 1\n") == ["      c: 1"]


@pytest.mark.parametrize("address", ["ray://head:10001", "RAY://head", "http://head:8265"])
def test_ray_client_is_refused_with_what_to_do(address: str) -> None:
    with pytest.raises(StudyError, match=r"address must be auto or host:port") as raised:
        load_cluster(None, [f"address={address}"])
    assert address in str(raised.value) and "ablate submit" in str(raised.value)
    assert load_cluster(None, ["address=head:6379"]).address == "head:6379"
