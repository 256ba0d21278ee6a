"""An S3 server on this machine (moto's), a bucket in it for each test, mirrors in the test's folder.

moto needs other versions of packages than ablate's pins, so it has an environment of its own
(`make test-stores` sets it up); ABLATE_MOTO_SERVER names its command. Without it these tests skip.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import S3FileSystem

REPOSITORY = Path(__file__).parents[2]
OWN = REPOSITORY / ".venv/moto/bin/moto_server"
START_SECONDS = 60


def moto_command() -> str | None:
    """Return the command of moto's server, None where there is none."""
    named = os.environ.get("ABLATE_MOTO_SERVER")
    return named or (str(OWN) if OWN.is_file() else None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of an S3 server."""
    command = moto_command()
    if command is None:
        pytest.skip("moto_server is not installed; make test-stores installs it")
    port = free_port()
    server = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + START_SECONDS
        while not answers(port):
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def s3(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3FileSystem:
    """The server's files; the environment has what the SDK needs to find them."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "ABLATE_MIRRORS": str(tmp_path / "mirrors"),
    }.items():
        monkeypatch.setenv(name, value)
    return S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True)


@pytest.fixture
def uri(s3: S3FileSystem, tmp_path: Path) -> str:
    """A place in a bucket of this test's own."""
    bucket = f"b{abs(hash(str(tmp_path))):x}"
    for tries in range(5):  # a busy machine's server may take longer than the SDK waits
        try:
            s3.create_dir(bucket)
            break
        except OSError:
            if tries == 4:
                raise
    return f"s3://{bucket}/studies/small"
