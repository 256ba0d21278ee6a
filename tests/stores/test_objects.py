"""Objects of an S3 server: whole, in their place, and errors in one line."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from pyarrow.fs import S3FileSystem

from ablate.errors import RunError, StudyError
from ablate.stores import objects as stored
from ablate.stores.objects import Objects, check_uri
from tests.stores.conftest import free_port


def base(uri: str) -> str:
    return uri.removeprefix("s3://")


def test_what_is_written_is_found_and_read(uri: str, tmp_path: Path) -> None:
    objects = Objects(uri)
    assert objects.find() == {} and objects.read("a/b") is None
    stat = objects.write("a/b", b"one")
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 50_000)
    large = objects.upload(file, "a/c d+%/@e")
    assert objects.find() == {"a/b": stat, "a/c d+%/@e": large}
    assert objects.find("a/b") == {"a/b": stat} and objects.find("a/") == objects.find()
    assert stat.bytes == 3 and abs(time.time() - stat.second) < 60
    objects.download("a/c d+%/@e", tmp_path / "new/copy")
    assert (tmp_path / "new/copy").read_bytes() == file.read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]


def test_nothing_outside_the_prefix_is_touched(uri: str, s3: S3FileSystem) -> None:
    bucket = base(uri).split("/")[0]
    for name in ("studies/other/x", "studies/small-2/x"):
        with s3.open_output_stream(f"{bucket}/{name}") as stream:
            stream.write(b"theirs")
    objects = Objects(uri)
    for name in ("x", "models/a/x", "models/b/x"):
        objects.write(name, b"ours")
    objects.delete("models/a")
    objects.delete("models/none")
    assert sorted(objects.find()) == ["models/b/x", "x"]
    objects.delete("models")
    objects.delete("x")
    assert objects.find() == {}
    for name in ("studies/other/x", "studies/small-2/x"):
        assert s3.open_input_stream(f"{bucket}/{name}").read() == b"theirs"


@pytest.mark.parametrize("name", ["../up", "a/../../up", "a//b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, uri: str) -> None:
    objects = Objects(uri)
    with pytest.raises(StudyError, match="plain names"):
        objects._name(f"{base(uri)}/{name}")


def test_a_missing_bucket_is_the_users(uri: str) -> None:
    with pytest.raises(StudyError, match="must be in a bucket that exists, got s3://nosuchbucket"):
        Objects("s3://nosuchbucket/x")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3://key@bucket/x", "no credentials"),
        ("s3://bucket", "below a bucket"),
        ("s3:///x", "below a bucket"),
        ("gs://bucket/", "below a bucket"),
    ],
)
def test_uris_that_cannot_be_workspaces(wrong: str, told: str) -> None:
    with pytest.raises(StudyError, match=told) as refused:
        check_uri(wrong)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["nostore://bucket/x", "s3://bucket/x?nosuch=1"])
def test_uris_that_pyarrow_does_not_know(wrong: str) -> None:
    with pytest.raises(StudyError, match="a URI that pyarrow"):
        Objects(wrong)


@pytest.mark.parametrize("code", ["ACCESS_DENIED", "EXPIRED_TOKEN", "NO_SUCH_BUCKET"])
def test_what_is_refused_is_not_tried_again(code: str, uri: str) -> None:
    objects, calls = Objects(uri), []

    def refused() -> None:
        calls.append(1)
        raise OSError(f"When reading 'x': AWS Error {code} during GetObject operation: no")

    with pytest.raises(StudyError, match="may be read and written"):
        objects._tried(refused)
    assert len(calls) == 1


def test_a_store_that_does_not_answer_is_the_machines(
    s3: S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "CONTACT_SECONDS", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RunError, match="must answer, got none from s3://bucket/x"):
        Objects("s3://bucket/x")


def test_a_store_that_comes_back_is_waited_for(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real errors of a port where nobody listens, then the server's own answers."""
    objects = Objects(uri)
    there = objects._files
    away = S3FileSystem(endpoint_override=f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(objects, "_files", away)
    back = threading.Timer(3.0, lambda: setattr(objects, "_files", there))
    back.start()
    objects.write("late", b"here")
    back.join()
    assert objects.read("late") == b"here"
