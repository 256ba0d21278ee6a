"""Files of token likelihoods: what is damaged or foreign is noted and never used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ablate.evaluate.token_nats import read_token_nats, token_nats_path, write_token_nats

MODEL, DOMAIN = "0123456789ab", "fedcba987654"
NATS = np.random.default_rng(0).gamma(1.5, 2, 501).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_token_nats(tmp_path, MODEL, DOMAIN, NATS)


def read(root: Path, tokens: int = NATS.size) -> np.ndarray | None:
    return read_token_nats(root, MODEL, DOMAIN, tokens)


def noted(capsys: pytest.CaptureFixture[str]) -> bool:
    return "likelihoods are made again" in capsys.readouterr().err


def test_what_was_written_comes_back(
    tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = read(tmp_path)
    assert values is not None and values.dtype == np.float32
    assert np.array_equal(values, NATS)
    assert path == tmp_path / "likelihoods" / MODEL / f"{DOMAIN}.safetensors"
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert not noted(capsys)


def test_it_is_a_safetensors_file(path: Path) -> None:
    with safe_open(path, framework="numpy") as stream:
        assert np.array_equal(stream.get_tensor("nats"), NATS)
        metadata = stream.metadata()
    assert metadata["model"] == MODEL and metadata["domain"] == DOMAIN
    assert metadata["tokens"] == "501" and metadata["schema_version"] == "1"


def test_the_same_numbers_make_the_same_bytes(tmp_path: Path, path: Path) -> None:
    other = write_token_nats(tmp_path / "other", MODEL, DOMAIN, NATS.astype(np.float64))
    assert other.read_bytes() == path.read_bytes()


def test_an_absent_file_is_no_news(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path) is None
    assert not noted(capsys)


@pytest.mark.parametrize("length", [0, 4, 8, 100, 600, -1])
def test_a_truncated_file_is_absent(
    tmp_path: Path, path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(path.read_bytes()[:length])
    assert read(tmp_path) is None
    assert noted(capsys)


@pytest.mark.parametrize("place", [0, 5, 9, 60, 150, 500, -1])
def test_a_flipped_bit_is_found(
    tmp_path: Path, path: Path, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    assert read(tmp_path) is None
    assert noted(capsys)


def test_a_longer_file_is_absent(
    tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    assert read(tmp_path) is None
    assert noted(capsys)


def test_a_file_of_another_model_domain_or_length_is_absent(
    tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, domain in ((MODEL[::-1], DOMAIN), (MODEL, DOMAIN[::-1])):
        other = token_nats_path(tmp_path, model, domain)
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(path.read_bytes())
        assert read_token_nats(tmp_path, model, domain, NATS.size) is None
        assert noted(capsys)
    assert read(tmp_path, NATS.size - 1) is None
    assert noted(capsys)


def test_a_hostile_header_is_not_followed(
    tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = len(path.read_bytes())
    huge = {"nats": {"dtype": "F32", "shape": [2**52], "data_offsets": [0, 2**54]}}
    for text in (json.dumps(huge).encode(), b"[" * 400, b"\xff" * 300):
        for claimed in (len(text), 2**63, 0):
            path.write_bytes((claimed.to_bytes(8, "little") + text).ljust(size, b"\0"))
            assert read(tmp_path) is None
            assert noted(capsys)


def test_numbers_that_are_no_nats_are_absent_even_with_a_right_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ablate.evaluate.token_nats._sound", lambda values: True)
        for wrong in (np.nan, np.inf, -0.5):
            write_token_nats(tmp_path, MODEL, DOMAIN, np.where(NATS > 5, wrong, NATS))
    assert read(tmp_path) is None
    assert noted(capsys)


def test_a_folder_in_its_place_is_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token_nats_path(tmp_path, MODEL, DOMAIN).mkdir(parents=True)
    assert read(tmp_path) is None
    assert noted(capsys)


@pytest.mark.parametrize("nats", [NATS[None], NATS[:0], -NATS, NATS * np.nan, NATS * np.inf])
def test_what_are_no_nats_is_not_written(tmp_path: Path, nats: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        write_token_nats(tmp_path, MODEL, DOMAIN, nats)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("mark", ["", "../x", "ABC", "0123\n", "g"])
def test_a_fingerprint_names_no_other_folder(tmp_path: Path, mark: str) -> None:
    with pytest.raises(ValueError, match="hex digits"):
        token_nats_path(tmp_path, mark, DOMAIN)
