"""Addresses, and logs whose results and progress part again. No cluster is needed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ablate.cluster import jobs, tracking, train
from ablate.cluster.job_address import job_address, only_address
from ablate.cluster.jobs import JobServer, _Lines
from ablate.errors import StudyError
from ablate.job_output import MarkedLines, show_line
from ablate.submitting import JOB_VARIABLES


@pytest.mark.parametrize(
    ("text", "shown", "loopback"),
    [
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265", True),
        ("http://localhost:8265/", "http://localhost:8265", True),
        ("http://[::1]:8265", "http://[::1]:8265", True),
        ("head:8265", "http://head:8265", False),
        ("https://ray.example.org/jobs", "https://ray.example.org/jobs", False),
        ("http://me:secret@10.0.0.7:8265", "http://10.0.0.7:8265", False),
    ],
)
def test_addresses_are_shown_without_passwords(text: str, shown: str, loopback: bool) -> None:
    address = job_address(text, {})
    assert (str(address), address.is_loopback) == (shown, loopback)


@pytest.mark.parametrize(
    "text", ["auto", "ray://head:10001", "ftp://x", "http://", "h:99999", "a:b:c"]
)
def test_other_addresses_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(StudyError, match="--address must be") as caught:
        job_address(text, {})
    assert "\n" not in str(caught.value)


def test_an_address_given_wins_over_rays_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RAY_ADDRESS": "http://b:1", "RAY_API_SERVER_ADDRESS": "http://a:1"}
    assert str(job_address(None, environment)) == "http://a:1"
    assert str(job_address("http://c:1", environment)) == "http://c:1"
    with pytest.raises(StudyError, match="--address must name"):
        job_address(None, {})
    from ray.dashboard.utils import get_address_for_submission_client

    monkeypatch.setenv("RAY_ADDRESS", "http://b:1")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with only_address(job_address("http://c:1")):
        assert get_address_for_submission_client("http://c:1") == "http://c:1"
    assert get_address_for_submission_client("http://c:1") == "http://b:1"


def test_only_plain_http_beyond_this_machine_without_a_token_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for mode, text, is_open in (
        ("disabled", "http://head:8265", True),
        ("token", "http://head:8265", False),
        ("disabled", "https://head", False),
        ("disabled", "http://127.0.0.1:8265", False),
    ):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        assert job_address(text, {}).is_open is is_open


@given(st.lists(st.text(), max_size=8), st.data())
def test_a_log_that_is_read_again_shows_each_line_once(
    lines: list[str], data: st.DataObject
) -> None:
    log = "\n".join(lines)
    seen: list[str] = []
    reader = _Lines(seen.append)
    for _ in range(data.draw(st.integers(1, 4))):
        reader.restart()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), min_size=1, max_size=5)))
        for start, end in zip([0, *cuts], cuts, strict=False):
            reader.add(log[start:end])
    reader.restart()
    reader.add(log)
    reader.end()
    expected = log.split("\n")
    assert seen == (expected if expected[-1] else expected[:-1])


def test_results_come_back_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    out = MarkedLines(log)
    print(json.dumps({"a": [1]}, indent=1), file=out)
    log.write("train 1/2 in 10s\n")
    Console(file=out, width=80).print("Best", "mixtures")
    log.write("ablate: something else\n")
    for line in log.getvalue().splitlines():
        show_line(line)
    printed, noted = capsys.readouterr()
    assert printed == '{\n "a": [\n  1\n ]\n}\nBest mixtures\n'
    assert noted == "train 1/2 in 10s\nablate: something else\n"


class Elsewhere(BaseHTTPRequestHandler):
    """A server that is no Ray."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path.startswith("/page") else 404)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("path", ["", "/page"])
def test_a_server_that_is_no_ray_is_told_apart(path: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = job_address(f"http://127.0.0.1:{server.server_port}{path}")
        with pytest.raises(StudyError, match="got something else") as caught:
            JobServer(address)
        server.shutdown()
    assert "\n" not in str(caught.value)


def test_a_stopped_job_may_save_before_it_is_killed_and_its_end_is_waited_for() -> None:
    may_take = int(JOB_VARIABLES["RAY_JOB_STOP_WAIT_TIME_S"])
    assert train.STOP_SECONDS + tracking.END_SECONDS < may_take < jobs.STOP_SECONDS


@pytest.mark.parametrize(
    "token",
    [b"SECRETSECRET12345\nSECONDLINE", "SECRETé😀".encode(), b"SECRET\xff\xfe", b"SECRET\x01x"],
    ids=ascii,
)
@pytest.mark.parametrize("given", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_no_header_holds_is_refused_and_not_shown(
    token: bytes, given: str, tmp_path: Path
) -> None:
    """In a process of its own: Ray reads the token once."""
    value = token
    if given == "RAY_AUTH_TOKEN_PATH":
        # Of a file Ray reads the first line.
        (tmp_path / "token").write_bytes(token.replace(b"\n", b"\r"))
        value = str(tmp_path / "token").encode()
    code = (
        "import ablate.cluster.jobs as jobs\nfrom ablate.cluster.job_address import job_address\n"
        "from ablate.errors import StudyError\n"
        "try: jobs.JobServer(job_address('http://127.0.0.1:9'))\n"
        "except StudyError as error: print(ascii(str(error)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120,
        env={b"RAY_AUTH_MODE": b"token", given.encode(): value, b"HOME": str(tmp_path).encode(),
             b"PATH": b"/usr/bin:/bin", b"PYTHONPATH": ":".join(sys.path).encode()},
    )  # fmt: skip
    assert "the token must be one line of visible ASCII characters" in found.stdout
    assert "SEC" not in found.stdout + found.stderr and found.stdout.count("\n") == 1


def test_an_error_is_cut_after_its_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "SECRETSECRET")
    assert "SEC" not in jobs.one_line("x" * 292 + "SECRETSECRET and more")
