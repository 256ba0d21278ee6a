"""What `ablate plan` predicts, beside what the stages take on this machine.

`python check_prediction.py FOLDER [key=value ...]` makes the study of `ablate init` in FOLDER where
there is none, and runs it there from nothing; its workspace must be empty.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ablate
from ablate.cluster.session import kept_session
from ablate.planning import Plan
from ablate.starter import write_starter

SMALL = (
    "seed.tokens=100_000",
    "train.tokens_per_unit=40_000",
    "search.trials=60",
    "search.algorithm=random",
    "validate.mixtures=3",
    "validate.sizes=[2]",
)
STAGES: dict[str, Callable[[ablate.Study], Any]] = {
    "prepare": ablate.prepare,
    "train": ablate.train,
    "search": ablate.search,
    "validate": ablate.validate,
}


def main(folder: Path, overrides: list[str]) -> None:
    """Plan, run, and print both."""
    if not (folder / "study.yaml").exists():
        write_starter(folder)
    study = ablate.load_study(folder / "study.yaml", [*SMALL, *overrides])
    workspace = study.open_workspace().root
    if (workspace / "corpus").exists():
        raise SystemExit(f"the workspace must be empty, got {workspace}; remove it")
    plan = ablate.plan(study)
    started = {stage.name: stage.seconds for stage in plan.forecast.stages}
    share = plan.forecast.hardware.start_share
    print(f"{plan.work.model.parameters:,} parameters, {plan.work.runs} runs, {os.cpu_count()} CPUs, ")
    print(f"of which a process got {share:.0%} while the plan measured, beside what else runs")
    print(f"{'stage':<12}{'predicted':>12}{'measured':>12}{'ratio':>8}{'load':>8}")
    with kept_session():  # Ray starts once, as in `ablate run`
        for name, seconds in started.items():
            before = time.perf_counter()
            STAGES[name](study)
            show(name, seconds or 0.0, time.perf_counter() - before, "s", os.getloadavg()[0])
    show("pool", plan.forecast.memory.pool / 1e6, pool_bytes(plan, workspace) / 1e6, "MB")


def show(name: str, predicted: float, found: float, unit: str, load: float | None = None) -> None:
    """Print one row: the ratio is measured over predicted."""
    beside = "" if load is None else f"{load:>8.1f}"
    pair = f"{predicted:>10.1f} {unit:<2}{found:>9.1f} {unit:<2}"
    print(f"{name:<12}{pair}{found / predicted:>7.2f}{beside}", flush=True)


def pool_bytes(plan: Plan, workspace: Path) -> int:
    """Return the bytes of the weights of the seed and of every unit, as files."""
    folders = [*workspace.glob("models/seed-*"), *workspace.glob("models/unit-*")]
    assert len(folders) == plan.work.units + 1
    return sum(file.stat().st_size for one in folders for file in one.glob("*.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
