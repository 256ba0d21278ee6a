"""The cluster launcher's file, by Ray's own checks and by what must not be open."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from explained import unexplained
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[2] / "ray_configs" / "aws.yaml"


def load() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def commands(config: dict[str, Any]) -> list[str]:
    return [
        command for name, value in config.items() if name.endswith("commands") for command in value
    ]


def test_ray_accepts_the_file() -> None:
    """As `ray up` does before it speaks with AWS: defaults filled in, then its JSON schema."""
    config = prepare_config(load())
    validate_config(config)
    types = config["available_node_types"]
    assert types["head"]["max_workers"] == 0
    assert types["gpu"]["max_workers"] <= config["max_workers"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_worker", 4),
        ("idle_timeout_minutes", "15"),
        ("setup_commands", "ls"),
        ("auth", {"user": "x"}),
    ],
)
def test_a_misspelt_key_or_a_wrong_type_is_refused(key: str, value: Any) -> None:
    config = prepare_config(load())
    config[key] = value
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config)


def test_every_line_is_explained() -> None:
    assert unexplained(FILE.read_text()) == []


def test_every_command_is_a_shell_s() -> None:
    for command in commands(load()):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_ray_s_ports_are_closed_and_the_token_is_on() -> None:
    config = load()
    assert config["provider"]["security_group"] == {"GroupName": "ablate"}  # no IpPermissions
    starts = [command for command in commands(config) if "ray start" in command]
    assert len(starts) == 2
    assert all(command.startswith("export RAY_AUTH_MODE=token;") for command in starts)
    (head,) = [command for command in starts if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head and "--num-cpus=0" in head
    token = "/home/ubuntu/.ray/auth_token"
    assert config["file_mounts"][token] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])


def test_workers_are_spot_and_the_head_is_not() -> None:
    types = load()["available_node_types"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}


def test_a_node_without_the_shared_folder_does_not_join() -> None:
    mounts = [command for command in load()["setup_commands"] if "/workspace" in command]
    assert "mount -t nfs4" in mounts[1]
    assert mounts[-1].startswith("mountpoint -q /workspace &&")


def test_defaults_do_not_leak_into_the_file() -> None:
    config = load()
    before = copy.deepcopy(config)
    prepare_config(config)
    assert config["provider"] == before["provider"]
