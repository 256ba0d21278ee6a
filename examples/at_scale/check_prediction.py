"""What `ablate plan` predicts, beside what the stages take on this machine.

`python check_prediction.py FOLDER [key=value ...]` makes the study of `ablate init` in FOLDER where
there is none, and runs it there from nothing; its workspace must be empty.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

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
    share = plan.forecast.hardware.start_share
    print(
        f"{plan.work.model.parameters:,} parameters, {plan.work.runs} runs, {os.cpu_count()} CPUs"
    )
    print("share: how long our processes had a CPU, of the time that they wanted one; predicted is")
    print(f"for {share:.0%} of it; ratio: measured x share / predicted for a machine of one's own")
    print(f"{'':<10}{'predicted':>12}{'measured':>12}{'share':>8}{'ratio':>8}")
    with kept_session():  # Ray starts once, as in `ablate run`
        for stage in plan.forecast.stages:
            with Clock() as clock:
                STAGES[stage.name](study)
            alone = (stage.seconds or 0.0) * share
            print(f"{stage.name:<10}{stage.seconds or 0.0:>10.1f} s{clock.seconds:>10.1f} s"
                  f"{clock.share:>8.0%}{clock.seconds * clock.share / alone:>8.2f}", flush=True)  # fmt: skip
    pool, found = plan.forecast.memory.pool, pool_bytes(plan, workspace)
    print(f"{'pool':<10}{pool / 1e6:>9.1f} MB{found / 1e6:>9.1f} MB{'':>8}{found / pool:>8.2f}")


class Clock:
    """Wall seconds of a block, and which share of a CPU its processes had when they wanted one."""

    def __enter__(self) -> Clock:
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}
        self._over = threading.Event()
        self._first = self._look()
        self._started = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._over.set()
        self._thread.join()
        before = [sum(values) for values in zip((0, 0), *self._first.values(), strict=True)]
        run, waited = (
            sum(values) - start
            for values, start in zip(
                zip((0, 0), *self._seen.values(), strict=True), before, strict=True
            )
        )
        self.share = run / (run + waited)

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self._look()

    def _look(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return nanoseconds run and waited so far, by process and thread; ended ones are kept."""
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                for task in Path(f"/proc/{process.pid}/task").iterdir():
                    run, waited, _ = (task / "schedstat").read_text().split()
                    self._seen[process.pid, int(task.name)] = int(run), int(waited)
        return dict(self._seen)


def pool_bytes(plan: Plan, workspace: Path) -> int:
    """Return the bytes of the weights of the seed and of every unit, as files."""
    folders = [*workspace.glob("models/seed-*"), *workspace.glob("models/unit-*")]
    assert len(folders) == plan.work.units + 1
    return sum(file.stat().st_size for one in folders for file in one.glob("*.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
