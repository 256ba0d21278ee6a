"""Arrows between modules point one way; Ray and DeepSpeed stay in their folders."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ablate"
# Lower layers first: a module may import from its own layer's folder and from lower layers.
LAYERS = [
    {"harmless", "interrupts"},
    {"errors", "verb_package", "job_output"},
    {
        "progress",
        "settings",
        "stores",
        "workspace",
        "plugins",
        "plain_values",
        "stage_log",
        "source_names",
    },
    {"study_paths"},
    {"study", "resources", "mixture", "mixture_text"},
    {"models", "merge", "corpus"},
    {"evaluate", "train", "search", "export", "starter", "packaging"},
    {"validate", "report"},
    {"cluster"},
    {"imports", "standing"},
    {"here"},
    {"on_ray"},
    {"validating"},
    {"planning"},
    {"engine", "exporting", "status", "submitting"},
    {"tables", "agreement_table", "plan_table"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Sideways inside a layer, one way each.
SIDEWAYS = {
    ("settings", "progress"), ("mixture_text", "mixture"), ("mixture_text", "study"),
    ("study", "resources"), ("merge", "models"), ("search", "evaluate"), ("workspace", "progress"),
    ("validate", "report"), ("agreement_table", "tables"), ("plan_table", "tables"), ("standing", "imports"),
    ("exporting", "engine"), ("status", "engine"), ("workspace", "settings"), ("stage_log", "progress"),
    ("workspace", "stores"),
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, TYPE_CHECKING ones left out."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def part(path: Path) -> str:
    """Return the first folder or module below the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_part_has_a_layer() -> None:
    assert {part(path) for path in files()} == set(RANK)


def test_arrows_point_down() -> None:
    wrong = []
    for path in files():
        mine = part(path)
        for name in imports(path):
            if not name.startswith("ablate."):
                continue
            other = name.split(".")[1]
            if other == mine or RANK[other] < RANK[mine] or (mine, other) in SIDEWAYS:
                continue
            wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_ray_and_deepspeed_stay_at_home() -> None:
    for path in files():
        roots = {name.split(".")[0] for name in imports(path)}
        assert part(path) == "cluster" or "ray" not in roots, path
        assert part(path) == "train" or "deepspeed" not in roots, path


def test_import_ablate_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys, ablate, ablate.cli; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'transformers', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_names_are_there() -> None:
    import ablate

    for name in ablate.__all__:
        assert getattr(ablate, name) is not None
    assert all(callable(v) for v in (ablate.search, ablate.train, ablate.validate, ablate.report))
    import ablate.search.spaces  # a call and a package at once

    assert callable(ablate.search)
