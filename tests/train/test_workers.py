"""Two workers at every ZeRO stage and precision: resumed as undisturbed, and like one worker.

The two processes are plain ones with a gloo group, as Ray Train makes it. The model has tensors
of odd sizes, so that partitions are padded.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ablate.train.finished import is_complete
from ablate.train.job import Start, TrainingJob
from ablate.train.loop import train_one
from tests.train.runs import VOCABULARY, Listener, distance, job, placement, same

REPOSITORY = Path(__file__).parents[2]
MATRIX = [(stage, precision) for precision in ("fp32", "bf16") for stage in (0, 1, 2, 3)]
ODD = {
    "preset": "tiny",
    "overrides": {
        "hidden_size": 33,
        "intermediate_size": 63,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "head_dim": 16,
    },
}
CHILD = """
import os, sys
from pathlib import Path
import torch.distributed as dist
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["LOCAL_RANK"] = sys.argv[2]
from tests.train.test_workers import train_matrix
root = Path(sys.argv[1])
store = dist.FileStore(str(root / "store"), 2)
dist.init_process_group("gloo", store=store, rank=int(sys.argv[2]), world_size=2)
train_matrix(root)
dist.barrier()
"""


def jobs(root: Path, stage: int, precision: str, end: str) -> tuple[TrainingJob, TrainingJob]:
    """Return a seed that leaves its moments, and a unit that starts from them.

    The unit is the mean of its weights after all steps but the first.
    """
    mark = f"{precision}-{stage}-{end}"
    fresh = Start(mark="random", model=ODD, vocab_size=VOCABULARY, eos_token_id=0)
    seed = job(root, f"seed-{mark}", start=fresh, save_moments=True, precision=precision)
    start = Start(
        mark=seed.fingerprint,
        folder=seed.folder,
        moments=str(seed.path / "optimizer.safetensors"),
    )
    recipe = {"carry_moments": True, "precision": precision, "average_steps": 5}
    return seed, job(root, f"unit-{mark}", start=start, **recipe)


def train_matrix(root: Path) -> None:
    """Train every stage and precision, undisturbed and stopped, in one process after another."""
    for stage, precision in MATRIX:
        where = placement(stage, workers=2, micro_batch_sequences=2)
        for end in ("whole", "broken"):
            for one in jobs(root, stage, precision, end):
                if end == "broken":
                    train_one(one, where, Listener(stop_at=512))
                train_one(one, where, Listener())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.train.runs import prepare_folder

    root = prepare_folder(tmp_path_factory.mktemp("workers"))
    command = [sys.executable, "-c", CHILD, str(root)]
    children = [
        subprocess.Popen([*command, str(rank)], cwd=REPOSITORY, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [child.communicate(timeout=600)[1].decode() for child in children]
    assert [child.returncode for child in children] == [0, 0], errors[0][-3000:]
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("stage", "precision"), MATRIX)
def test_two_workers_resume_exactly_and_agree_with_one(
    trained: Path, stage: int, precision: str
) -> None:
    whole = jobs(trained, stage, precision, "whole")
    broken = jobs(trained, stage, precision, "broken")
    lone = jobs(trained, stage, precision, "lone")
    for one in lone:
        train_one(one, placement(stage), Listener())
    for left, right, single in zip(whole, broken, lone, strict=True):
        assert is_complete(left.path, left) and left.fingerprint == single.fingerprint
        assert same(left, right)
        # bf16 rounds gradients, and Adam turns the sign of a tiny one into a whole step.
        assert distance(left, single) < (3e-4 if precision == "fp32" else 1.5e-2)
