"""The Kubernetes manifests: their schema, KubeRay's own rules, and Ray's reading of them."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from explained import unexplained
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from strict import crd_schema, definitions, kind, problems

FOLDER = Path(__file__).parents[2] / "ray_configs" / "kuberay"
ROOT = FOLDER.parents[1]
CLAIM = "io.k8s.api.core.v1.PersistentVolumeClaim"
KINDS = {"raycluster.yaml": "RayCluster", "rayjob.yaml": "RayJob", "workspace.yaml": CLAIM}
# A folder with ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of a KubeRay release, to check the
# manifests and our table of fields against the whole CRDs.
CRDS = os.environ.get("KUBERAY_CRDS")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def spec() -> dict[str, Any]:
    found: dict[str, Any] = load("raycluster.yaml")["spec"]
    return found


def groups() -> list[dict[str, Any]]:
    return [spec()["headGroupSpec"], *spec()["workerGroupSpecs"]]


def place(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part)] if part.isdigit() else document[part]
    return document


@pytest.mark.parametrize("name", KINDS)
def test_a_manifest_has_only_fields_that_exist(name: str) -> None:
    assert problems(kind(KINDS[name]), load(name)) == []


@pytest.mark.parametrize("name", ["raycluster.yaml", "workspace.yaml"])
def test_a_manifest_explains_its_lines(name: str) -> None:
    assert unexplained((FOLDER / name).read_text()) == []


def test_the_job_explains_what_the_cluster_s_file_does_not() -> None:
    own, _, _ = (FOLDER / "rayjob.yaml").read_text().partition("  rayClusterSpec:\n")
    assert unexplained(own) == []


WORKER = "spec.workerGroupSpecs.0"
POD = f"{WORKER}.template.spec"


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("spec", "rayversion", "2.60.0"),
        ("spec", "authOptions", {"mode": "tokens"}),
        ("spec", "enableInTreeAutoscaling", "true"),
        ("spec.headGroupSpec.rayStartParams", "num-cpus", 0),
        ("spec.autoscalerOptions", "idleTimeoutSeconds", "600"),
        (WORKER, "minReplica", 2),
        (WORKER, "maxReplicas", 2.5),
        (POD, "restartpolicy", "Never"),
        (POD, "tolerations", {"key": "nvidia.com/gpu"}),
        (f"{POD}.containers.0", "imagePullPolicies", "Always"),
        (f"{POD}.containers.0.resources.limits", "memory", "900 Gi"),
        (f"{POD}.volumes.1.emptyDir", "sizelimit", "1Gi"),
        (f"{POD}.volumes.0", "persistentVolumeClaim", {"claim": "ablate-workspace"}),
        ("metadata", "namespce", "x"),
        ("metadata", "name", None),
    ],
)
def test_a_misspelt_field_or_a_wrong_value_is_refused(path: str, key: str, value: Any) -> None:
    document = load("raycluster.yaml")
    place(document, path)[key] = value
    assert len(problems(kind("RayCluster"), document)) >= 1


@pytest.mark.parametrize(
    "path", ["spec.headGroupSpec", f"{WORKER}.template", f"{WORKER}.groupName", "spec", "kind"]
)
def test_a_missing_field_is_refused(path: str) -> None:
    document = load("raycluster.yaml")
    above, _, key = path.rpartition(".")
    del (place(document, above) if above else document)[key]
    assert any("required" in problem for problem in problems(kind("RayCluster"), document))


def test_a_whole_crd_is_read_as_strictly(tmp_path: Path) -> None:
    """The way of a CRD's file, on one cut down to a few lines."""
    text = """
    spec:
      versions:
        - {name: v1alpha1, schema: {}}
        - name: v1
          schema:
            openAPIV3Schema:
              type: object
              properties:
                kind: {type: string}
                spec:
                  type: object
                  required: [size]
                  properties:
                    size: {anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}
                    free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {}}}
    """
    file = tmp_path / "crd.yaml"
    file.write_text(text)
    schema = crd_schema(file)
    good = {"kind": "X", "metadata": {"name": "x"}, "spec": {"size": "1Gi", "free": {"b": 1}}}
    assert problems(schema, good) == []
    assert problems(schema, {**good, "spec": {"size": 1.5}})
    assert problems(schema, {**good, "spec": {"size": 1, "sizes": 1}})
    assert problems(schema, {**good, "spec": {}})


@pytest.mark.skipif(CRDS is None, reason="KUBERAY_CRDS names no folder with KubeRay's CRDs")
@pytest.mark.parametrize(("name", "crd"), [("raycluster", "RayCluster"), ("rayjob", "RayJob")])
def test_the_whole_crds_accept_the_manifests_and_know_our_fields(name: str, crd: str) -> None:
    schema = crd_schema(Path(str(CRDS)) / f"ray.io_{name}s.yaml")
    assert problems(schema, load(f"{name}.yaml")) == []
    whole = schema["properties"]["spec"]["properties"]
    assert set(definitions()[f"{crd}Spec"]["properties"]) >= set(load(f"{name}.yaml")["spec"])
    assert set(load(f"{name}.yaml")["spec"]) <= set(whole)


def test_the_job_s_cluster_is_the_cluster() -> None:
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"] == spec()


def test_kuberay_s_own_rules_hold() -> None:
    """What its operator checks beyond the schema."""
    cluster, job = spec(), load("rayjob.yaml")["spec"]
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", load("raycluster.yaml")["metadata"]["name"])
    assert len(load("rayjob.yaml")["metadata"]["generateName"]) + 5 <= 47
    # A token needs a Ray of at least 2.52.
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(int(part) for part in cluster["rayVersion"].split(".")) >= (2, 52, 0)
    # Autoscaler v2 wants pods that are not restarted in place.
    assert {group["template"]["spec"]["restartPolicy"] for group in groups()} == {"Never"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert job["backoffLimit"] >= 0 and job["activeDeadlineSeconds"] > 0
    # The time to live counts only with the shutdown.
    assert job["shutdownAfterJobFinishes"] and job["ttlSecondsAfterFinished"] >= 0


def test_every_pod_is_guaranteed_unprivileged_and_on_the_shared_volume() -> None:
    claim = load("workspace.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert not {"livenessProbe", "readinessProbe"} & set(container)  # KubeRay's own
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        shared = volumes[mounts["/workspace"]]["persistentVolumeClaim"]["claimName"]
        assert shared == claim["metadata"]["name"]
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_no_secret_and_no_open_port_stands_in_a_manifest() -> None:
    for file in FOLDER.glob("*.yaml"):
        assert "auth_token:" not in file.read_text() and "stringData" not in file.read_text()
    assert spec()["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in spec()["headGroupSpec"]


def test_ray_s_autoscaler_reads_the_cluster() -> None:
    """The installed Ray's own reading of the resource, as its autoscaler does it in the head."""
    cluster = copy.deepcopy(load("raycluster.yaml"))
    cluster["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["headgroup"]["resources"]["GPU"] == 0
    assert types["gpu"]["resources"] == {"CPU": 88, "GPU": 8, "memory": 900 * 2**30}
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (2, 4)
    assert config["idle_timeout_minutes"] == 10


def test_the_image_is_made_of_this_ray_and_of_files_that_exist() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    (pinned,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (base,) = re.findall(r"^FROM rayproject/ray:([\d.]+)-py311-gpu$", text, re.MULTILINE)
    assert base == pinned == spec()["rayVersion"]
    copied = re.findall(r"^COPY --chown=ray:users (.+) \S+$", text, re.MULTILINE)
    assert copied and all((ROOT / name).exists() for line in copied for name in line.split())
    (folder,) = re.findall(r"^WORKDIR (.+)$", text, re.MULTILINE)
    words = load("rayjob.yaml")["spec"]["entrypoint"].split()
    assert words[:2] == ["ablate", "run"] and words[2].startswith("/workspace/")
    assert words[3:] == ["--cluster", f"{folder}/ray_configs/gpu-cluster.yaml"]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups()}
    assert len(images) == 1 and f"--tag {images.pop()} ." in text
