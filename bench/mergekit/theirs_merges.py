"""Time mergekit's merges; run in its own environment: theirs_merges.py FOLDER MEMBERS REPEATS.

FOLDER holds seed/ and m0/ ... in bfloat16. Prints JSON: CPU seconds of each repeat, in memory (as
mergekit-evolve merges: plan, execute, copy into a live model) and to disk. The last in-memory merge
is written to FOLDER/theirs.safetensors.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import torch
from mergekit.architecture import arch_info_for_config
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.io.tasks import ReturnTensor
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM


def main(folder: Path, members: int, repeats: int) -> None:
    """Print the timings."""
    torch.set_num_threads(1)
    options = MergeOptions(lazy_unpickle=False, quiet=True)
    config = MergeConfiguration.model_validate(
        {
            "merge_method": "linear",
            "models": [
                {"model": str(folder / f"m{i}"), "parameters": {"weight": (i + 1.0)}}
                for i in range(members)
            ],
            "dtype": "bfloat16",
            "parameters": {"normalize": True},
        }
    )
    shape = AutoConfig.from_pretrained(folder / "seed")
    architecture = arch_info_for_config(shape)
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    model.tie_weights()
    live = dict(model.named_parameters())
    memory = [_timed(lambda: _in_memory(config, architecture, options, shape, live))
              for _ in range(repeats)]  # fmt: skip
    save_file({k: v.detach().clone() for k, v in live.items()}, folder / "theirs.safetensors")
    disk = [_timed(lambda: _to_disk(config, options, folder / "out")) for _ in range(repeats)]
    print(json.dumps({"memory": memory, "disk": disk}))


def _timed(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _in_memory(config, architecture, options, shape, live) -> None:
    tasks = MergePlanner(config, architecture, options, shape).plan_in_memory()
    executor = Executor(tasks, math_device="cpu", storage_device="cpu")
    for task, value in executor.run(quiet=True):
        assert isinstance(task, ReturnTensor)
        name = task.weight_info.name
        if name in live:
            live[name].data.copy_(value, non_blocking=True)


def _to_disk(config, options, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    run_merge(config, str(out), options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
