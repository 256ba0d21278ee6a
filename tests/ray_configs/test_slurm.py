"""slurm.sbatch with Slurm's programs replaced by ones that run on this machine; Ray is real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "ray_configs" / "slurm.sbatch"

# Runs the command here; a node's name is a word of the log.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do echo "srun $1" >> "$STUB_LOG"; shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$STUB_LOG"
if [[ $1 == show ]]; then tr ',' '\\n' <<< "$3"; fi
"""
# What `ablate VERB STUDY --cluster FILE KEY=VALUE` gets: it joins by the project's own code.
JOINS = """#!{python}
import json, os, pathlib, stat, sys, time
import ray
from ablate.cluster.session import TaskMap, session
from ablate.resources import load_cluster

cluster = load_cluster(sys.argv[sys.argv.index("--cluster") + 1])
token = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"])
with session(cluster):
    def place(item, shared):
        time.sleep(2)  # so long that one node does not do all of them
        return ray.get_runtime_context().get_node_id()

    where = TaskMap(cluster)(place, range(8), 0, "x")
    found = dict(
        arguments=sys.argv[1:],
        nodes=sum(node["Alive"] for node in ray.nodes()),
        used=len(set(where)),
        cpus=ray.cluster_resources()["CPU"],
        mode=os.environ["RAY_AUTH_MODE"],
        token_mode=stat.S_IMODE(token.stat().st_mode),
        token=len(token.read_text()),
        temp=ray.get_runtime_context().get_temp_dir(),
    )
pathlib.Path("found.json").write_text(json.dumps(found))
sys.exit(7)
"""
WAITS = """#!{python}
import pathlib, sys, time
pathlib.Path("started").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)  # states are saved
    pathlib.Path("saved").touch()
    sys.exit(130)
"""


def program(path: Path, text: str) -> None:
    path.write_text(text.replace("{python}", sys.executable))
    path.chmod(0o755)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A folder with the programs of a site, and the environment of a job in it."""
    for folder in ("venv/bin", "slurm", "home", "temp"):
        (tmp_path / folder).mkdir(parents=True)
    program(tmp_path / "slurm" / "srun", SRUN)
    program(tmp_path / "slurm" / "scontrol", SCONTROL)
    # Ports come from the number: another test run on this machine should have another one.
    number = str(100_000 + os.getpid())
    host = socket.gethostname()
    local = Path("/tmp") / f"wt{number}"  # sockets: a longer path would not fit
    local.mkdir()
    found = {
        "PATH": f"{tmp_path / 'slurm'}:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(SCRIPT.parents[1]),
        "STUB_LOG": str(tmp_path / "stub.log"),
        "VENV": str(tmp_path / "venv"),
        "CLUSTER": str(SCRIPT.parent / "gpu-cluster.yaml"),
        "STORE_BYTES": "200000000",
        "LOCAL": str(local),
        "JOIN_SECONDS": "300",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NODELIST": f"{host},{host}",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_GPUS_ON_NODE": "0",
    }
    yield found
    for process in of_the_job(found):
        process.kill()
    shutil.rmtree(local, ignore_errors=True)


def start(site: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        env=site,
        cwd=site["SLURM_SUBMIT_DIR"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # As Slurm starts it, also when these tests run in the background, where Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def of_the_job(site: dict[str, str]) -> list[psutil.Process]:
    """Return the processes that name the job's own folder for Ray's files."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if site["LOCAL"] in " ".join(process.info["cmdline"] or [])
    ]


def check_nothing_is_left(site: dict[str, str]) -> None:
    assert of_the_job(site) == []
    assert list(Path(site["LOCAL"]).iterdir()) == []
    assert list(Path(site["HOME"]).rglob("token-*")) == []


@pytest.mark.slow
def test_two_nodes_join_run_the_verb_and_end(site: dict[str, str]) -> None:
    """Two real Ray nodes on this machine, token, ports of the job, the verb's own exit code."""
    bin_ = Path(site["VENV"]) / "bin"
    program(bin_ / "ablate", JOINS)
    for name in ("python", "ray"):
        program(bin_ / name, f'#!/bin/bash\nexec {Path(sys.executable).parent / name} "$@"\n')
    job = start(site, "study.yaml", "train", "search.trials=3")
    output, _ = job.communicate(timeout=500)
    assert job.returncode == 7, output
    found: dict[str, Any] = json.loads((Path(site["SLURM_SUBMIT_DIR"]) / "found.json").read_text())
    assert found.pop("arguments") == [
        "train", "study.yaml", "--cluster", site["CLUSTER"], "search.trials=3",
    ]  # fmt: skip
    assert found.pop("temp") == f"{site['LOCAL']}/ray-{site['SLURM_JOB_ID']}"
    assert found == {
        "nodes": 2, "used": 2, "cpus": 4, "mode": "token", "token_mode": 0o600, "token": 64,
    }  # fmt: skip
    log = Path(site["STUB_LOG"]).read_text()
    assert log.count(f"--nodelist={socket.gethostname()}") >= 2 and "requeue" not in log
    check_nothing_is_left(site)


def without_ray(site: dict[str, str], verb: str) -> None:
    bin_ = Path(site["VENV"]) / "bin"
    program(bin_ / "ablate", verb)
    program(bin_ / "ray", "#!/bin/bash\nexec sleep 100\n")
    # The script's own question whether all nodes are there: yes.
    program(
        bin_ / "python",
        f'#!/bin/bash\nif [[ $1 == - ]]; then cat > /dev/null; else exec {sys.executable} "$@"; fi\n',
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_interrupts_the_verb_and_only_the_time_limit_requeues(
    site: dict[str, str], sent: signal.Signals
) -> None:
    folder = Path(site["SLURM_SUBMIT_DIR"])
    without_ray(site, WAITS)
    job = start(site, "study.yaml")
    wait_for(folder / "started")
    job.send_signal(sent)
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 130, output
    assert (folder / "saved").exists()
    requeued = f"scontrol requeue {site['SLURM_JOB_ID']}" in Path(site["STUB_LOG"]).read_text()
    assert requeued == (sent == signal.SIGUSR1)
    check_nothing_is_left(site)


def test_the_verb_s_exit_code_is_the_job_s(site: dict[str, str]) -> None:
    without_ray(site, '#!/bin/bash\necho "$@" > arguments; exit 2\n')
    job = start(site, "study.yaml")
    output, _ = job.communicate(timeout=30)
    assert job.returncode == 2, output
    arguments = (Path(site["SLURM_SUBMIT_DIR"]) / "arguments").read_text()
    assert arguments == f"run study.yaml --cluster {site['CLUSTER']}\n"
    check_nothing_is_left(site)


def test_a_study_is_asked_for(site: dict[str, str]) -> None:
    job = start(site)
    output, _ = job.communicate(timeout=30)
    assert job.returncode != 0 and "usage: sbatch slurm.sbatch STUDY.yaml" in output
    check_nothing_is_left(site)


def test_the_script_is_bash_and_every_directive_is_explained() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    directives = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert len(directives) >= 10
    assert [line for line in directives if " # " not in line] == []
