"""A Kubernetes manifest against a schema, as strictly as an API server that forbids unknown fields.

Schemas of Kubernetes and of CRDs say which fields there are and let others pass; here an object
with `properties` has those fields and no others, unless it says that it keeps unknown ones.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMAS = Path(__file__).parent / "schemas"
TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "number": {"type": "number"},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
}
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
QUANTITY_TEXT = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"


def strict(schema: Any) -> Any:
    """Return `schema` with unknown fields and null refused."""
    if isinstance(schema, list):
        return [strict(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("type"), list):
        # Kubernetes reads null as "not there"; in a file it is a value that somebody forgot.
        found["type"] = [name for name in schema["type"] if name != "null"]
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not keeps:
        found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
        found["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return found


def problems(schema: Mapping[str, Any], document: Any) -> list[str]:
    """Return `place: what is wrong` for everything in `document` that `schema` refuses."""
    validator = jsonschema.Draft7Validator(strict(dict(schema)))
    return sorted(
        f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)
    )


@cache
def definitions() -> dict[str, Any]:
    """Return Kubernetes' definitions and, by their plain names, those of KubeRay."""
    found: dict[str, Any] = json.loads(gzip.decompress(_kubernetes()))["$defs"]
    # The package has a quantity as any text; the API server wants a number with a known unit.
    found[QUANTITY] = {"anyOf": [{"type": "string", "pattern": QUANTITY_TEXT}, {"type": "number"}]}
    table = yaml.safe_load((SCHEMAS / "kuberay.yaml").read_text())
    found.update({name: _object(fields) for name, fields in table.items()})
    return found


def kind(name: str) -> dict[str, Any]:
    """Return the schema of a kind: RayCluster, RayJob, or a Kubernetes definition."""
    return {"$ref": f"#/$defs/{name}", "$defs": definitions()}


def crd_schema(file: Path) -> dict[str, Any]:
    """Return the schema of version v1 out of a CustomResourceDefinition's YAML."""
    for version in yaml.safe_load(file.read_text())["spec"]["versions"]:
        if version["name"] == "v1":
            found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
            # A CRD leaves metadata to Kubernetes.
            found["properties"]["metadata"] = {"type": "object"}
            return found
    raise AssertionError(f"{file} has no version v1")


def _kubernetes() -> bytes:
    return (SCHEMAS / "kubernetes.json.gz").read_bytes()


def _object(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name.rstrip("*"): _type(value) for name, value in fields.items()},
        "required": [name.rstrip("*") for name in fields if name.endswith("*")],
    }


def _type(text: Any) -> dict[str, Any]:
    if isinstance(text, list):
        return {"type": "array", "items": _type(text[0])}
    if text in TYPES:
        return TYPES[text]
    if text.startswith("k8s "):
        return {"$ref": "#/$defs/" + text.removeprefix("k8s ")}
    if re.fullmatch(r"[A-Z]\w*", text) and text not in ("RayCluster", "RayJob"):
        return {"$ref": f"#/$defs/{text}"}
    return {"type": "string", "enum": text.split("|")}
