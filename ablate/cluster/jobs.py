"""Ray Jobs: a verb sent to a cluster's job server over HTTP, followed, found again, stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from ablate.cluster.job_address import JobAddress, only_address
from ablate.errors import RunError, StudyError
from ablate.harmless import without_secrets
from ablate.progress import note
from ablate.settings import cut

try:
    import aiohttp
    import requests
except ImportError as error:
    raise StudyError(
        f"submitting needs ray[default], got {error}; pip install 'ablate[jobs]'"
    ) from error

CONTACT_SECONDS, HELLO_SECONDS, ANSWER_SECONDS = 10.0, 15.0, 120.0
START_SECONDS = 60.0
"""A head that just started has no job agent yet: so long it is asked again."""
LOST_SECONDS = 120.0
"""A lost connection is taken up again for so long."""
SILENT_SECONDS = 60.0
"""After so much silence the log is asked for anew: the connection may be dead."""
STOP_SECONDS = 300.0
"""A job that is stopped saves its state first; `submitting` says for how long it may."""
PAUSE_SECONDS = 1.0
INTERRUPTED, FAILED = 130, 1
STUDY, VERB, WORKSPACE = "ablate_study", "ablate_verb", "ablate_workspace"
STARTING = ("No available agent", "Cannot connect to host", "Connection refused")
TOKEN_PLACES = "RAY_AUTH_TOKEN_PATH (a file), RAY_AUTH_TOKEN, or ~/.ray/auth_token"
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.authentication.http_token_authentication",
)


class Unreachable(StudyError):
    """Nothing answers at the address, or not any more."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One job as its server knows it; `state` is Ray's word in lower case.

    `started` and `ended` are seconds since 1970, `exit_code` is what `Job.follow` returns, None
    while the job goes on; `message` is one line about a failure without an exit code of its own.
    """

    job: str
    study: str
    verb: str
    workspace: str
    state: str
    started: float | None
    ended: float | None
    exit_code: int | None
    message: str

    @property
    def is_over(self) -> bool:
        """Return whether it will not change any more."""
        return self.exit_code is not None

    @property
    def started_text(self) -> str:
        """Return when it started, local time."""
        if self.started is None:
            return "not yet"
        return datetime.fromtimestamp(self.started, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is to be run: a shell command in the unpacked package (a zip).

    All of it can be read by whoever reaches the server: no secrets go into it.
    """

    job: str
    command: str
    package: Path
    metadata: Mapping[str, str]
    variables: Mapping[str, str]
    requirements: Sequence[str]


class JobServer:
    """The job server of a Ray cluster. Raises StudyError in one line where it cannot be used."""

    def __init__(self, address: JobAddress) -> None:
        self.address = address
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        with self._asking(), only_address(address):
            _require_sendable_token()
            self._client = _Client(address.url)

    def submit(self, request: JobRequest) -> Job:
        """Send a package and start its command; return the job."""
        environment: dict[str, Any] = {
            "working_dir": str(request.package),
            "env_vars": dict(request.variables),
        }
        if request.requirements:
            environment["pip"] = {"packages": list(request.requirements), "pip_check": False}
        deadline = time.monotonic() + START_SECONDS
        waited = False
        while True:
            try:
                with self._asking():
                    self._client.submit_job(
                        entrypoint=request.command,
                        submission_id=request.job,
                        runtime_env=environment,
                        metadata=dict(request.metadata),
                    )
                return Job(self, request.job)
            except RunError as error:
                starting = any(word in str(error) for word in STARTING)
                if not starting or time.monotonic() > deadline:
                    raise
            if not waited:
                note("the job server is not ready yet; trying again for a minute")
            waited = True
            time.sleep(PAUSE_SECONDS)

    def jobs(self, workspace: str) -> list[JobState]:
        """Return the jobs of one workspace (by its mark), oldest first."""
        with self._asking():
            found = self._client.list_jobs()
        mine = [
            _state(details)
            for details in found
            if details.type == JobType.SUBMISSION
            and (details.metadata or {}).get(WORKSPACE) == workspace
        ]
        return sorted(mine, key=lambda state: state.started or float("inf"))

    def state(self, job: str) -> JobState:
        """Return the state of one job; raise StudyError when there is none of that id."""
        with self._asking():
            return _state(self._client.get_job_info(job))

    def stop(self, job: str) -> None:
        """Ask a job to stop; one that is over stays as it is."""
        with self._asking():
            self._client.stop_job(job)

    def log(self, job: str) -> str:
        """Return the whole log so far."""
        with self._asking():
            return str(self._client.get_job_logs(job))

    async def tail(self, job: str) -> AsyncGenerator[str, None]:
        """Yield a job's log from its first character, as it grows, to its end.

        Ends early after SILENT_SECONDS without a word. Raises Unreachable when the connection
        breaks.
        """
        try:
            async with aclosing(self._client.tail_job_logs(job)) as pieces:
                while True:
                    async with asyncio.timeout(SILENT_SECONDS):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    yield piece
        except TimeoutError:
            return
        except (aiohttp.ClientError, RuntimeError, OSError) as error:
            raise Unreachable(f"the log of {job} broke off: {one_line(error)}") from error

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what goes wrong with a request into one line."""
        try:
            yield
        except AuthenticationError as error:
            raise StudyError(_token_problem(error, self.address)) from error
        except UnicodeError as error:  # a token that is no text: its bytes are in the error
            raise StudyError(_unsendable()) from error
        except (requests.JSONDecodeError, KeyError) as error:
            raise StudyError(_no_job_server(self.address)) from error
        except (requests.ConnectionError, requests.Timeout, ConnectionError) as error:
            refused = "refused" in str(error)
            got = "a refused connection" if refused else f"none within {CONTACT_SECONDS:.0f} s"
            raise Unreachable(
                f"a Ray job server must answer at {self.address}, got {got}; start one "
                "with `ray start --head` (its dashboard port, 8265 unless --dashboard-port says otherwise), or mend --address"
            ) from error
        except requests.RequestException as error:
            raise StudyError(
                f"a Ray job server must answer at {self.address}, got {one_line(error)}; mend "
                "--address"
            ) from error
        except RuntimeError as error:
            raise self._problem(str(error)) from error

    def _problem(self, text: str) -> StudyError | RunError:
        if "404" in text and "does not exist" in text:
            return StudyError(
                f"a job must exist at {self.address}, got none of that id; `ablate status "
                "STUDY.yaml --address URL` lists them"
            )
        if "404" in text or "not supported" in text:
            return StudyError(_no_job_server(self.address))
        return RunError(f"the job server at {self.address} failed: {one_line(text)}")


class Job:
    """A job on a server."""

    def __init__(self, server: JobServer, job: str) -> None:
        self.id = job
        self.address = server.address
        self._server = server

    def status(self) -> JobState:
        """Return its state."""
        return self._server.state(self.id)

    def follow(self, show: Callable[[str], None]) -> int:
        """Pass every line of its log to `show`, from the first to the last; return its exit code.

        That is the verb's own, 130 when the job was stopped, 1 when it failed without one. A lost
        connection is taken up again where it broke off; RunError after LOST_SECONDS in vain.
        """
        log = _Lines(show)
        lost: float | None = None
        while True:
            try:
                asyncio.run(self._read(log))
                state = self.status()
                if state.exit_code is not None:
                    log.restart()
                    log.add(self._server.log(self.id))
                    log.end()
                    return state.exit_code
                lost = None
            except Unreachable as error:
                lost = self._wait_for_connection(lost, error)

    async def _read(self, log: _Lines) -> None:
        log.restart()
        async with aclosing(self._server.tail(self.id)) as pieces:
            async for piece in pieces:
                log.add(piece)

    def _wait_for_connection(self, lost: float | None, error: Unreachable) -> float:
        """Pause after a lost connection; return since when it is lost."""
        now = time.monotonic()
        if lost is None:
            note(f"the connection to {self.address} was lost; trying again")
        elif now - lost > LOST_SECONDS:
            raise RunError(
                f"the connection to {self.address} was lost for {LOST_SECONDS:.0f} s; job "
                f"{self.id} may go on: follow it when the server is back"
            ) from error
        time.sleep(PAUSE_SECONDS)
        return now if lost is None else lost

    def wait(self) -> int:
        """Return its exit code when it is over."""
        return self.follow(lambda line: None)

    def cancel(self) -> JobState:
        """Stop it and return its state at the end; one that is over stays as it is.

        Raises RunError when it does not stop.
        """
        deadline = time.monotonic() + STOP_SECONDS
        while not (state := self.status()).is_over:
            if time.monotonic() > deadline:
                raise RunError(f"job {self.id} did not stop within {STOP_SECONDS:.0f} s; try again")
            self._server.stop(self.id)  # again and again: one that is not up yet hears nothing
            time.sleep(PAUSE_SECONDS)
        return state


class _Lines:
    """Whole lines of a log that may be read again from its start: each is shown once."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._seen = self._position = 0
        self._open = ""

    def restart(self) -> None:
        """Take what is added next as the log's beginning."""
        self._position = 0

    def add(self, text: str) -> None:
        """Show the lines that end in what is new of `text`."""
        new = text[max(self._seen - self._position, 0) :]
        self._position += len(text)
        self._seen = max(self._seen, self._position)
        *whole, self._open = (self._open + new).split("\n")
        for line in whole:
            self._show(line)

    def end(self) -> None:
        """Show a last line without an end."""
        if self._open:
            self._show(self._open)
        self._open = ""


class _Client(JobSubmissionClient):
    """Ray's client, which never waits for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        patience = HELLO_SECONDS if endpoint == "/api/version" else ANSWER_SECONDS
        return super()._do_request(
            method, endpoint, **{"timeout": (CONTACT_SECONDS, patience), **options}
        )


def _state(details: JobDetails) -> JobState:
    metadata = details.metadata or {}
    code = _exit_code(details)
    return JobState(
        job=details.submission_id,
        study=metadata.get(STUDY, ""),
        verb=metadata.get(VERB, ""),
        workspace=metadata.get(WORKSPACE, ""),
        state=details.status.value.lower(),
        started=_seconds(details.start_time),
        ended=_seconds(details.end_time),
        exit_code=code,
        message=_reason(details) if code == FAILED != details.driver_exit_code else "",
    )


def _exit_code(details: JobDetails) -> int | None:
    """Return 0, the verb's own code, 130 when stopped, 1 when it has none; None while it runs."""
    if not details.status.is_terminal():
        return None
    if details.status == JobStatus.STOPPED:
        return INTERRUPTED
    if details.status == JobStatus.SUCCEEDED:
        return 0
    own = details.driver_exit_code
    return own if own is not None and own > 0 else FAILED  # below 0: killed by a signal


def _reason(details: JobDetails) -> str:
    """Return why a job has no exit code of its own, on one line."""
    return one_line((details.message or "").partition(", last available logs")[0])


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _require_sendable_token() -> None:
    """Refuse a token that no HTTP header can hold, before a refusal further down shows it."""
    headers = get_auth_headers_if_auth_enabled({})
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise StudyError(_unsendable())


def _unsendable() -> str:
    return (
        "the token must be one line of visible ASCII characters, got others (not shown); mend "
        f"{TOKEN_PLACES}"
    )


def _token_problem(error: AuthenticationError, address: JobAddress) -> str:
    if "RAY_AUTH_TOKEN_PATH" in error.message and "cannot be opened" in error.message:
        return "RAY_AUTH_TOKEN_PATH must name a file with the cluster's token, got none there"
    if "Authentication failed" in error.message:
        return (
            f"the token must be that of the cluster at {address}, got another; mend {TOKEN_PLACES}"
        )
    return (
        f"a token must be given for the cluster at {address}, got none; set RAY_AUTH_MODE=token "
        f"and {TOKEN_PLACES}"
    )


def _no_job_server(address: JobAddress) -> str:
    return (
        f"a Ray job server must answer at {address}, got something else; name the dashboard's "
        "address (port 8265 by default) of a cluster with ray[default]"
    )


def one_line(value: object) -> str:
    """Return the text of an error on one line, cut to a readable length."""
    # Hidden before the cut: half a secret would not be known as one.
    text = " ".join(without_secrets(str(value)).split())
    return cut(text or type(value).__name__, 300)
