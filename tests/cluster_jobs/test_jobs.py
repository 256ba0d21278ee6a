"""`ablate submit` against a real head, dashboard and job server on loopback, in token mode."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from heads import Head
from proxy import Proxy

JOB_FILES = ("trials.jsonl", "pool.json", "corpus/corpus.json")


def is_one_line(error: str) -> bool:
    return error.startswith("ablate: ") and error.count("\n") == 1


@pytest.mark.slow
def test_a_verb_runs_there_and_its_results_come_back(head: Head, folder: Path) -> None:
    code, out, err = head.ablate(
        folder, "submit", "study.yaml", "--address", head.address, "--verb", "prepare", "--json"
    )
    assert code == 0, err
    assert {part["name"] for part in json.loads(out)} == {"a", "b", "c", "seed"}
    assert "python -m ablate prepare study.yaml" in err
    assert (folder / "work" / "corpus" / "corpus.json").is_file()

    code, out, _ = head.ablate(folder, "status", "study.yaml", "--address", head.address, "--json")
    (job,) = json.loads(out)
    assert (code, job["verb"], job["state"], job["exit_code"]) == (0, "prepare", "succeeded", 0)
    assert job["job"].startswith("tiny-")
    assert head.token not in out + err


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "a token must be given"),
        ({"RAY_AUTH_MODE": "token"}, "a token must be given"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong" * 8}, "got another"),
    ],
    ids=["no mode", "no token", "wrong token"],
)
def test_without_the_right_token_it_is_one_line(
    head: Head, folder: Path, variables: dict[str, str], message: str
) -> None:
    words = ("status", "study.yaml", "--address", head.address)
    code, out, err = head.ablate(folder, *words, variables=variables)
    assert (code, out) == (2, "")
    assert is_one_line(err) and message in err and "wrongwrong" not in err


@pytest.mark.slow
def test_a_token_of_a_file_does_as_well(head: Head, folder: Path) -> None:
    (folder / "token").write_text(head.token)
    words = ("status", "study.yaml", "--address", head.address)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    code, out, err = head.ablate(folder, *words, variables=variables)
    assert (code, out, err) == (0, "no job of this study is known there\n", "")
    variables["RAY_AUTH_TOKEN_PATH"] = str(folder / "gone")
    code, _, err = head.ablate(folder, *words, variables=variables)
    assert code == 2 and is_one_line(err) and "RAY_AUTH_TOKEN_PATH" in err


@pytest.mark.slow
def test_a_whole_run_with_files_sent_along(head: Head, folder: Path) -> None:
    words = ("submit", "study.yaml", "--address", head.address, "--with-files")
    code, out, err = head.ablate(folder, *words)
    assert code == 0, err
    assert "Best mixtures of each size" in out and "trained" in err
    assert (folder / "work" / "report.html").is_file()
    assert nothing_is_trained_again(head, folder)


@pytest.mark.slow
def test_a_whole_run_there_is_a_run_here(head: Head, folder: Path) -> None:
    code, _, err = head.ablate(folder, "submit", "study.yaml", "--address", head.address)
    assert code == 0, err
    before = {name: (folder / "work" / name).read_bytes() for name in JOB_FILES}
    assert nothing_is_trained_again(head, folder)
    assert {name: (folder / "work" / name).read_bytes() for name in JOB_FILES} == before


def nothing_is_trained_again(head: Head, folder: Path) -> bool:
    """Run the study here, too; return whether every model and score stayed as it was."""

    def state() -> list[tuple[str, int, int]]:
        work = folder / "work"
        files = [*work.glob("models/**/*"), work / "trials.jsonl"]
        return sorted((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)

    before = state()
    code, _, err = head.ablate(folder, "run", "study.yaml", variables={"RAY_AUTH_MODE": "disabled"})
    assert code == 0, err
    return state() == before


@pytest.mark.slow
def test_detach_follow_leave_and_cancel(head: Head, folder: Path) -> None:
    there = ("study.yaml", "--address", head.address)
    code, out, err = head.ablate(folder, "submit", *there, "--verb", "train", "--detach")
    assert code == 0
    job = out.strip()
    assert f"--job {job} --follow" in err and f"--job {job} --cancel" in err

    command = [sys.executable, "-m", "ablate", "status", *there, "--follow"]
    followers = [
        subprocess.Popen(
            command, cwd=folder, env=head.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    first, second = followers
    assert first.stderr is not None and second.stderr is not None
    for line in first.stderr:
        if "Running entrypoint" in line:
            break
    os.killpg(first.pid, signal.SIGINT)
    rest = first.stderr.read()
    assert first.wait(60) == 130
    assert f"left {job}, which goes on" in rest and f"--job {job} --follow" in rest

    code, out, err = head.ablate(folder, "status", *there, "--cancel", "--json")
    assert code == 0, err
    assert [(s["job"], s["state"], s["exit_code"]) for s in json.loads(out)] == [
        (job, "stopped", 130)
    ]
    assert second.wait(60) == 130
    assert f"job {job} stopped with exit code 130" in second.stderr.read()

    code, out, _ = head.ablate(folder, "status", *there, "--job", job, "--follow")
    assert code == 130
    code, _, err = head.ablate(folder, "status", *there, "--cancel")
    assert code == 2 and is_one_line(err) and "running job" in err
    code, _, err = head.ablate(folder, "status", *there, "--job", "other-1", "--follow")
    assert code == 2 and is_one_line(err) and "other-1" in err


@pytest.mark.slow
def test_the_verbs_own_exit_code_comes_back(head: Head, folder: Path) -> None:
    there = ("study.yaml", "--address", head.address)
    code, out, err = head.ablate(folder, "submit", *there, "corpus.heldout.documents=0.001")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[-2].startswith("ablate: every partition must keep a held-out document")
    assert lines[-1].endswith("failed with exit code 2")
    code, _, err = head.ablate(folder, "submit", *there, "--python", "no-such-python")
    assert code == 127 and "no-such-python" in err


@pytest.mark.slow
def test_nothing_secret_is_kept_by_the_server(head: Head, folder: Path) -> None:
    """The server's own record of the job holds neither the token nor other variables."""
    there = ("study.yaml", "--address", head.address)
    head.environment["HF_TOKEN"] = "hf-secret-word"
    try:
        code, _, err = head.ablate(folder, "submit", *there, "--verb", "prepare")
    finally:
        del head.environment["HF_TOKEN"]
    assert code == 0, err
    script = (
        "import json, sys; from ray.job_submission import JobSubmissionClient; "
        f"client = JobSubmissionClient('{head.address}'); "
        "print([job.dict() for job in client.list_jobs()], "
        "[client.get_job_logs(j.submission_id) for j in client.list_jobs() if j.submission_id])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=head.environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "ablate_workspace" in done.stdout
    for secret in (head.token, "hf-secret-word", str(folder)):
        assert secret not in done.stdout


def test_without_the_extra_it_is_one_line(folder: Path) -> None:
    script = (
        "import sys; sys.modules['aiohttp'] = None; sys.argv = ['ablate', 'status', 'study.yaml', "
        "'--address', 'http://127.0.0.1:1']; from ablate.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and is_one_line(done.stderr) and "ablate[jobs]" in done.stderr


@pytest.mark.slow
def test_a_lost_connection_is_taken_up_again(head: Head, folder: Path) -> None:
    there = ("study.yaml", "--address", head.address)
    code, out, _ = head.ablate(folder, "submit", *there, "--verb", "prepare", "--detach")
    assert code == 0
    proxy = Proxy(int(head.address.rpartition(":")[2]))
    words = ["status", "study.yaml", "--address", f"http://127.0.0.1:{proxy.port}", "--follow"]
    follower = subprocess.Popen(
        [sys.executable, "-m", "ablate", *words], cwd=folder, env=head.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stderr is not None and follower.stdout is not None
    lines = []
    for line in follower.stderr:
        lines.append(line)
        if "Running entrypoint" in line:
            proxy.cut()
        if "was lost" in line:
            proxy.mend()
    assert follower.wait(120) == 0
    proxy.close()
    code, out, err = head.ablate(folder, "status", *there, "--follow", "--job", out.strip())
    assert code == 0
    assert follower.stdout.read() == out
    assert [line for line in lines if "was lost" not in line] == err.splitlines(keepends=True)
    assert len(lines) > err.count("\n")
