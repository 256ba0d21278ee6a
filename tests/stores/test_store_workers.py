"""Two workers of a run on two machines that share nothing but the store; stopped, and gone on elsewhere.

Plain processes with a gloo group, as Ray Train makes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.stores import fetched, kept, mirror
from ablate.stores.objects import Objects
from ablate.workspace import write_atomic
from tests.faults.disturbing import REPOSITORY
from tests.train.runs import job, prepare_folder, same

CHILD = """
import os, sys
os.environ["DS_ACCELERATOR"] = "cpu"
from pathlib import Path
import torch.distributed as dist
from ablate.train.loop import train_one
from tests.train.runs import Listener, job, placement
root, meeting, rank, stage, stop = Path(sys.argv[1]), *sys.argv[2:]
os.environ["LOCAL_RANK"] = rank
store = dist.FileStore(meeting, 2)
dist.init_process_group("gloo", store=store, rank=int(rank), world_size=2)
where = placement(int(stage), workers=2, micro_batch_sequences=2)
heard = Listener(stop_at=float(stop))
done = train_one(job(root, "unit", save_moments=True), where, heard)
print(done, min(heard.heard, default=0), *heard.notes)
dist.barrier()
"""


def train(root: Path, meeting: Path, machines: tuple[Path, Path], stage: int, stop: float) -> str:
    """Train the job by one worker on each machine; return what the first one heard."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, root, meeting, str(rank), str(stage), str(stop)],
            env={**os.environ, "ABLATE_MIRRORS": str(machine), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, machine in enumerate(machines)
    ]
    told = [worker.communicate(timeout=600) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    return told[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_a_run_goes_on_where_no_part_of_its_state_is(stage: int, uri: str, tmp_path: Path) -> None:
    one, two, three, four = (tmp_path / name for name in ("one", "two", "three", "four"))
    root = mirror.open_mirror(uri)
    prepare_folder(root)
    write_atomic(root / "tokenizer/tokenizer.json", b"{}")
    kept(root)
    unit = job(root, "unit", save_moments=True)

    told = train(root, tmp_path / "first", (one, two), stage, stop=512)
    assert told.startswith("False 256")
    state = {name for name in Objects(uri).find("models") if "/step-" in name}
    assert len(state) == (1 if stage == 0 else 3) and all("step-3" in name for name in state)

    told = train(root, tmp_path / "second", (three, four), stage, stop=1e9)
    assert told == "True 1024\n"
    assert not [name for name in Objects(uri).find("models") if ".resume" in name]
    assert fetched(unit.path).is_dir() and not list(three.rglob("step-*"))

    plain = prepare_folder(tmp_path / "plain")
    write_atomic(plain / "tokenizer/tokenizer.json", b"{}")
    train(plain, tmp_path / "third", (one, one), stage, stop=1e9)
    assert same(unit, job(plain, "unit", save_moments=True))
    # Both workers on one machine: only the first handles files.
    train(root, tmp_path / "fourth", (three, three), stage, stop=1e9)
