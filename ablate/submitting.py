"""The verb `submit`: a study and this code packed and sent to a cluster as a Ray Job."""

from __future__ import annotations

import secrets
import shlex
import tempfile
from pathlib import Path

from ablate.cluster.job_address import JobAddress, job_address
from ablate.cluster.jobs import STUDY, VERB, WORKSPACE, Job, JobRequest, JobServer, JobState
from ablate.errors import StudyError, did_you_mean
from ablate.job_output import MARKING
from ablate.packaging import (
    CLUSTER_FILE,
    STUDY_FILE,
    pinned_requirements,
    workspace_mark,
    write_package,
)
from ablate.progress import note
from ablate.resources import Cluster
from ablate.stores import is_mirrored
from ablate.study import Study
from ablate.workspace import Workspace, slug

VERBS = ("run", "prepare", "train", "search", "validate", "report")
WITHOUT_JSON = ("report",)
NAME_LENGTH = 16
JOB_VARIABLES = {
    MARKING: "1",
    # A stopped verb hears Ctrl-C and has so many seconds to end, then it is killed. Its lanes may
    # take 60 to save their states, and its trackers 120.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "240",
}


def submit(
    study: Study,
    *,
    address: str | None = None,
    verb: str = "run",
    cluster: Cluster | None = None,
    with_files: bool = False,
    install: bool = False,
    python: str = "python",
    json: bool = False,
) -> Job:
    """Send a verb to the cluster whose job server is at `address`, and return the job.

    `address` defaults to Ray's own environment variables. With `with_files` the study's local
    sources, model and tokenizer go along; without, their paths must be there on the cluster. The
    workspace must be on storage that its nodes share. `install` has the packages of this
    environment installed for the job, else `python` there must have them. With `json` the verb
    prints JSON. Raises StudyError in one line, before anything is sent when the study is wrong.
    """
    if verb not in VERBS:
        raise StudyError(f"verb must be one of {', '.join(VERBS)}, {did_you_mean(verb, VERBS)}")
    if json and verb in WITHOUT_JSON:
        raise StudyError(f"--json must go with a verb that prints JSON, got {verb}")
    where, mark = job_address(address), workspace_mark(study)
    from ablate.search.check import check_search  # loads torch, which to find a job need not

    check_search(study)
    requirements = pinned_requirements() if install else []
    with tempfile.TemporaryDirectory(prefix="ablate-submit-") as folder:
        package = write_package(
            Path(folder) / "package.zip", study, cluster or Cluster(), with_files=with_files
        )
        server = JobServer(where)
        _warn(study, where, with_files)
        job = server.submit(
            JobRequest(
                job=f"{slug(study.name)[:NAME_LENGTH].strip('-')}-{secrets.token_hex(3)}",
                command=_command(python, verb, json),
                package=package.path,
                metadata={STUDY: study.name, VERB: verb, WORKSPACE: mark},
                variables=JOB_VARIABLES,
                requirements=requirements,
            )
        )
    files = f", {package.files} files" if package.files else ""
    note(f"sent {verb} to {where} as {job.id} ({package.bytes / 1e6:.1f} MB{files})")
    return job


def _command(python: str, verb: str, json: bool) -> str:
    words = [python, "-m", "ablate", verb, STUDY_FILE, "--cluster", CLUSTER_FILE]
    return shlex.join([*words, "--json"] if json else words)


def _warn(study: Study, address: JobAddress, with_files: bool) -> None:
    """Say what cannot be checked from here."""
    if address.is_open:
        note(
            f"warning: {address} is plain http and RAY_AUTH_MODE is not token: whoever reaches "
            "that port can run code on the cluster"
        )
    if not address.is_loopback:
        data = "it" if with_files else "it and the study's files"
        workspace = Workspace.open(study.workspace)
        where = "" if is_mirrored(workspace.root) else " at the same path"
        note(
            f"the workspace is {workspace.location}: all nodes of the cluster must see {data}{where}"
        )
    if with_files and study.units:
        note("the folders under `units` are not sent: they must stay where the cluster sees them")


def jobs_of(study: Study, address: str | None = None) -> list[JobState]:
    """Return the jobs that were submitted for this study's workspace, oldest first."""
    return JobServer(job_address(address)).jobs(workspace_mark(study))


def job_of(
    study: Study, address: str | None = None, job: str | None = None, *, running: bool = False
) -> Job:
    """Return one job of this study: the one named, else the latest that runs, else the latest.

    With `running` it must be one that runs, and the only one unless it is named. Raises
    StudyError.
    """
    server = JobServer(job_address(address))
    found = server.jobs(workspace_mark(study))
    names = [state.job for state in found]
    if job is not None:
        if job not in names:
            raise StudyError(
                f"--job must be a job of this study at {server.address}, got {job}; "
                f"{did_you_mean(job, names)}"
            )
        return Job(server, job)
    going = [state.job for state in found if not state.is_over]
    if running and len(going) > 1:
        raise StudyError(f"--job must say which of the running jobs: {', '.join(going)}")
    if not names or (running and not going):
        what = "running job" if running else "job"
        raise StudyError(f"this study must have a {what} at {server.address}, got none")
    return Job(server, (going or names)[-1])
