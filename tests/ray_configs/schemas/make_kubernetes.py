"""Cut what the manifests need out of Kubernetes' own JSON schema, as it comes in a Python package.

pip download --no-deps kubernetes-validate==1.37.0
python make_kubernetes.py kubernetes_validate-1.37.0-py3-none-any.whl kubernetes.json.gz
"""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INSIDE = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json"
ROOTS = {
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.PodTemplateSpec",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.networking.v1.IngressTLS",
    "io.k8s.api.networking.v1.NetworkPolicyEgressRule",
    "io.k8s.api.networking.v1.NetworkPolicyIngressRule",
}


def named(tree: Any) -> Iterator[str]:
    """Yield the definitions that `tree` refers to."""
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"].rsplit("/", 1)[-1]
        for value in tree.values():
            yield from named(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from named(value)


def bare(tree: Any) -> Any:
    """Return `tree` without descriptions and merge hints, its references local."""
    if isinstance(tree, list):
        return [bare(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    kept = {}
    for key, value in tree.items():
        if key == "$ref" and isinstance(value, str):
            kept[key] = "#/$defs/" + value.rsplit("/", 1)[-1]
        elif isinstance(value, dict) or not (key == "description" or key.startswith("x-kube")):
            kept[key] = bare(value)
    return kept


def main(wheel: Path, target: Path) -> None:
    """Write the closure of ROOTS; the same bytes for the same wheel."""
    with zipfile.ZipFile(wheel) as archive:
        every = json.loads(archive.read(INSIDE))["$defs"]
    found: dict[str, Any] = {}
    waiting = sorted(ROOTS)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = bare(every[name])
            waiting.extend(named(every[name]))
    text = json.dumps({"$defs": found}, sort_keys=True, separators=(",", ":"))
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{target}: {len(found)} definitions, {len(text)} characters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
