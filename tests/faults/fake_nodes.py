"""Ray's fake autoscaler: nodes that it starts as processes of this machine when they are asked for.

`AutoscalingCluster` reads its settings from an example that not every wheel of Ray brings along.
"""

from __future__ import annotations

from typing import Any

from ray.cluster_utils import AutoscalingCluster

HEAD = "ray.head.default"


class FakeNodes(AutoscalingCluster):
    """A head without CPUs, and at most `count` nodes of `cpus` CPUs, none at first."""

    def __init__(self, cpus: int, count: int, store_bytes: int) -> None:
        node = {"CPU": cpus, "object_store_memory": store_bytes}
        kind = {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": count}
        super().__init__(head_resources={"CPU": 0}, worker_node_types={"cpu_node": kind})

    def _generate_config(
        self, head_resources: dict[str, Any], worker_node_types: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        head = {"resources": head_resources, "node_config": {}, "max_workers": 0}
        commands = ("initialization", "setup", "head_setup", "worker_setup")
        starts = ("head_start_ray", "worker_start_ray")
        lists = ("cluster_synced_files", "rsync_exclude", "rsync_filter")
        return {
            "cluster_name": "fake_nodes",
            "max_workers": 8,
            "provider": {
                "type": "fake_multinode",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {**worker_node_types, HEAD: head},
            "head_node_type": HEAD,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 0.1,
            "auth": {},
            "docker": {},
            "file_mounts": {},
            "file_mounts_sync_continuously": False,
            **{f"{name}_commands": [] for name in (*commands, *starts)},
            **{name: [] for name in lists},
        }
