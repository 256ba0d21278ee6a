"""Readers of files that anyone may have written: the value, or one line, within bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablate.corpus import read_corpus, read_tokens
from ablate.corpus.token_files import TokenWriter, content_digest, read_domain
from ablate.corpus.values import DomainInfo, TokenFile
from ablate.errors import CheckpointError, UserError, WorkspaceError
from ablate.evaluate.statistics import DomainScore
from ablate.evaluate.token_nats import read_token_nats, token_nats_path, write_token_nats
from ablate.merge.statistics.files import read_statistics, write_statistics
from ablate.models.checkpoint import altered_file, intact_digest, published_digest, read_training
from ablate.models.pool import ModelPool, SeedModel, UnitModel, read_pool, write_pool
from ablate.models.tensor_file import read_header, read_into, write_tensors
from ablate.plain_values import typed
from ablate.report.costs import costs_of
from ablate.search.candidates import base_candidates, recall
from ablate.search.journal import Journal, Scored, _digest
from ablate.search.leaderboard import Leaderboard
from ablate.search.spaces import make_space
from ablate.search.spaces.partitions import Partitions
from ablate.study import SpaceSettings
from ablate.workspace import Workspace
from tests.security.fuzzing import COUNTS, changed, examples, mutated_bytes, places, strange_values
from tests.security.memory import peak_of

DIGEST = "ab" * 32
POOL = ModelPool(
    seed=SeedModel(fingerprint="5eed", folder="models/seed-5eed", digest=DIGEST),
    units=tuple(
        UnitModel(partition=name, index=0, fingerprint=f"{place}a", folder=f"models/unit-{name}",
                  digest=DIGEST, tokens=10)
        for place, name in enumerate(("law", "math"))
    ),
    layout_fingerprint="1a", tokenizer="70",
)  # fmt: skip
CORPUS: dict[str, Any] = {
    "fingerprint": "f",
    "tokenizer": {"fingerprint": "t", "vocab_size": 300, "eos_token_id": 0},
    "partitions": {
        "law": {
            "name": "law", "slug": "law", "documents": 1, "tokens": 250, "bytes": 9, "units": 2,
            "unit_tokens": [100, 100], "unit_digests": [DIGEST, DIGEST], "unused_tokens": 50,
            "dropped": {"empty": 0}, "unchecked": 0, "heldout_documents": 0, "heldout_dropped": 0,
            "train": {"path": "corpus/law/train.arrow", "tokens": 250, "digest": DIGEST},
        }
    },
    "domains": {
        "law": {
            "name": "law", "kind": "heldout", "documents": 1, "tokens": 50, "bytes": 9,
            "tokens_file": {"path": "corpus/law/heldout.arrow", "tokens": 50, "digest": DIGEST},
        }
    },
    "seed": {"path": "corpus/@seed/train.arrow", "tokens": 250, "digest": DIGEST},
    "seed_dropped": {"empty": 0},
    "inputs": {"files": {}, "outputs": {"corpus/law/train.arrow": [1, 2, DIGEST]}},
}  # fmt: skip
TRAINED: dict[str, Any] = {
    "kind": "unit", "fingerprint": "5a", "tokens": 40, "seconds": 1.5, "digest": DIGEST,
    "files": {"config.json": DIGEST}, "imported_from": "there", "optimizer_digest": DIGEST,
}  # fmt: skip
TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16),
           "c": torch.tensor([1, 2])}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _counts(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\nfuzzed:", ", ".join(f"{name} {count:,}" for name, count in COUNTS.items()))
    COUNTS.clear()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one sound file of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    write_tensors(folder / "tensors", TENSORS)
    with TokenWriter(folder / "tokens", np.uint16, with_bytes=True) as writer:
        writer.write(np.arange(300), np.ones(300))
    nats = write_token_nats(folder, "ab", "cd", np.linspace(0, 5, 40))
    write_statistics(folder / "fisher", "fisher", torch.rand(30), {"model": "m"})
    return {
        "tensors": (folder / "tensors").read_bytes(), "tokens": (folder / "tokens").read_bytes(),
        "nats": nats.read_bytes(), "fisher": (folder / "fisher").read_bytes(),
    }  # fmt: skip


def one_line(error: UserError) -> None:
    assert "\n" not in str(error) and 0 < len(str(error)) < 5000


@given(data=st.data())
@examples(120)
def test_safetensors(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    COUNTS["safetensors"] += 1
    path = tmp_path / "model.safetensors"
    path.write_bytes(data.draw(mutated_bytes(sound["tensors"]) | st.binary(max_size=300)))
    try:
        for tensor in read_header(path).values():
            out = np.empty(tensor.shape, np.float32).reshape(-1)
            if tensor.dtype in ("F32", "BF16", "F16"):
                read_into(tensor, out)
                assert np.isfinite(out).all()
    except CheckpointError as error:
        one_line(error)


@given(header=strange_values(), place=st.sampled_from([
    ("a",), ("a", "dtype"), ("a", "shape"), ("a", "data_offsets"), ("a", "shape", 0),
    ("a", "data_offsets", 0), ("a", "data_offsets", 1), ("__metadata__",),
]))  # fmt: skip
@examples(100)
def test_headers_of_safetensors(tmp_path: Path, header: Any, place: tuple[Any, ...]) -> None:
    COUNTS["headers"] += 1
    tree = {"__metadata__": {}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(changed(tree, place, header)).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    try:
        assert all(tensor.length <= 8 for tensor in read_header(path).values())
    except CheckpointError as error:
        one_line(error)


@given(data=st.data())
@examples(150)
def test_token_files(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    COUNTS["Arrow"] += 1
    path = tmp_path / "x.arrow"
    path.write_bytes(data.draw(mutated_bytes(sound["tokens"]) | st.binary(max_size=300)))
    file = TokenFile(path="x.arrow", tokens=300, digest=content_digest(path) or DIGEST)
    domain = DomainInfo(name="d", kind="domain", documents=1, tokens=300, bytes=1, tokens_file=file)
    for read in (
        lambda: read_tokens(tmp_path, file, 10, 20),
        lambda: read_domain(tmp_path, domain),
    ):
        try:
            read()
        except WorkspaceError as error:
            one_line(error)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_tokens_are_refused_unread(tmp_path: Path, codec: str) -> None:
    schema = pa.schema([("token", pa.uint16())])
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), schema, options=options) as writer:
        writer.write_batch(pa.record_batch([pa.array(np.zeros(1 << 28, np.uint16))], schema=schema))
    size = (tmp_path / "x.arrow").stat().st_size
    code = "import sys\nfrom pathlib import Path\nfrom ablate.corpus.token_files import content_digest\n"
    line, peak = peak_of(f"{code}print(content_digest(Path(sys.argv[1])))", tmp_path / "x.arrow")
    print(f"{codec}: {size:,} bytes, 512 MB of tokens: peak {peak:.0f} MB")
    assert line == "None" and peak < 350


@pytest.mark.slow
def test_a_million_tensors_and_a_header_of_all_bytes(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom ablate.models.tensor_file import read_header\n"
        "from ablate.errors import CheckpointError\n"
        "try:\n print(len(read_header(Path(sys.argv[1]))))\n"
        "except CheckpointError as error:\n print(str(error)[:50])"
    )
    item = '"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(item % n for n in range(1_000_000)) + "}").encode()
    for name, data in (
        ("tensors", len(text).to_bytes(8, "little") + text),
        ("claim", (2**63).to_bytes(8, "little") + text),
        ("lists", (24 << 20).to_bytes(8, "little") + b"[" + b"[]," * (8 << 20)),
    ):
        (tmp_path / name).write_bytes(data)
        line, peak = peak_of(code, tmp_path / name)
        print(f"{name}: {line}: peak {peak:.0f} MB")
        assert line.startswith("weights must be a whole safetensors file") and peak < 1200


@given(data=st.data(), tokens=st.integers(0, 100))
@examples(80)
def test_likelihoods(
    tmp_path: Path, sound: dict[str, bytes], data: st.DataObject, tokens: int
) -> None:
    COUNTS["likelihoods"] += 1
    path = token_nats_path(tmp_path, "ab", "cd")
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.draw(mutated_bytes(sound["nats"]) | st.binary(max_size=300))
    path.write_bytes(raw)
    for asked in {tokens, 40}:
        found = read_token_nats(tmp_path, "ab", "cd", asked)
        assert found is None or (raw == sound["nats"] and asked == 40)


@given(data=st.data())
@examples(80)
def test_statistics(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    COUNTS["statistics"] += 1
    raw = data.draw(mutated_bytes(sound["fisher"]) | st.binary(max_size=300))
    (tmp_path / "x").write_bytes(raw)
    try:
        found = read_statistics(tmp_path / "x", "fisher", {"model": "m"})
        (tmp_path / "sound").write_bytes(sound["fisher"])
        wanted = read_statistics(tmp_path / "sound", "fisher", {"model": "m"})
        assert found is not None and wanted is not None and found[1] == wanted[1]
        assert torch.equal(found[0], wanted[0])  # type: ignore[arg-type]
    except WorkspaceError as error:
        one_line(error)


@given(place=st.sampled_from(places(CORPUS)), value=strange_values())
@examples(150)
def test_corpus_json(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    COUNTS["corpus.json"] += 1
    workspace = Workspace(tmp_path)
    tree = json.loads(json.dumps(changed(CORPUS, place, value)))
    workspace.corpus_json.parent.mkdir(exist_ok=True)
    workspace.corpus_json.write_text(json.dumps({"schema_version": 1, **tree}))
    try:
        corpus = read_corpus(workspace)
    except WorkspaceError as error:
        one_line(error)
        return
    assert corpus is not None
    files = [info.train for info in corpus.partitions.values()]
    files += [info.tokens_file for info in corpus.domains.values()]
    for file in [*files, *([corpus.seed] if corpus.seed else [])]:
        inside = (tmp_path / file.path).resolve().relative_to(tmp_path.resolve() / "corpus")
        assert len(inside.parts) == 2


@given(place=st.sampled_from(places(POOL.to_json())), value=strange_values())
@examples(120)
def test_pool_json(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    COUNTS["pool.json"] += 1
    workspace = Workspace(tmp_path)
    tree = changed(POOL.to_json(), place, value)
    try:
        pool = ModelPool.from_json(json.loads(json.dumps(tree)))
        write_pool(workspace, pool)
        assert read_pool(workspace) == ModelPool.from_json(tree, str(tmp_path))
        folders = [
            pool.seed.folder,
            *(u.folder for u in pool.units if not u.folder.startswith("/")),
        ]
        assert all(folder.split("/")[0] == "models" and ".." not in folder for folder in folders)
    except ValueError:
        body = {"schema_version": 1, **json.loads(json.dumps(tree)), "fingerprint": "x"}
        workspace.pool_json.write_text(json.dumps(body))
        with pytest.raises(WorkspaceError) as raised:
            read_pool(workspace)
        one_line(raised.value)


@given(place=st.sampled_from([(), *places(TRAINED)]), value=strange_values())
@examples(120)
def test_training_json(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    """It is left out, or what others calculate from it are numbers."""
    COUNTS["training.json"] += 1
    tree = json.loads(json.dumps(changed(TRAINED, place, value) if place else value))
    body = {"schema_version": 1, **tree} if isinstance(tree, dict) else tree
    (tmp_path / "training.json").write_text(json.dumps(body))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    found = read_training(tmp_path)
    law = Partitions(units={"law": 1}, tokens={"law": 1}, available={"law": 1})
    space = make_space(SpaceSettings(), law, "micro")
    board = Leaderboard(
        trials=(), domains=(), space=space, merges=(), units={}, weights={}, group_tokens={}
    )
    costs = costs_of(board, {"parameters": 10}, [found] if found else [])
    assert all(stage.tokens >= 0 and (stage.seconds or 0.0) < 1e400 for stage in costs.stages)
    assert intact_digest(tmp_path) is None and isinstance(altered_file(tmp_path), str | None)
    assert len(published_digest(tmp_path)) == 64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, True, "1"])
def test_a_number_in_a_state_file_is_finite(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        typed(float, value)


def record() -> dict[str, Any]:
    """Return what the journal keeps of a scored unit."""
    from ablate.search.candidates import describe
    from ablate.search.journal import _to_json

    candidate = base_candidates(POOL)[1]
    score = DomainScore(nats=10.0, tokens=5, bytes=9, stderr=0.1, groups=(1.0, 2.0))
    scored = Scored(key=candidate.key, scores={"d": score}, slopes={"d": {"u": 0.1}})
    return {"schema_version": 1, **describe(candidate), **_to_json(scored)}


@given(place=st.sampled_from(places(record())), value=strange_values(), data=st.data())
@examples(150)
def test_the_journal(
    tmp_path: Path, place: tuple[Any, ...], value: Any, data: st.DataObject
) -> None:
    """A line with one value changed and a fitting digest is taken or left out; it breaks nothing."""
    COUNTS["journal"] += 1
    body = json.loads(json.dumps(changed(record(), place, value)))
    line = json.dumps({"digest": _digest(body), **body}).encode()
    if data.draw(st.booleans()):
        line = data.draw(mutated_bytes(line))
    whole = json.dumps({"digest": _digest(record()), **record()}).encode()
    (tmp_path / "trials.jsonl").write_bytes(line.replace(b"\n", b" ") + b"\n" + whole + b"\n")
    journal = Journal(tmp_path / "trials.jsonl")
    key = record()["key"]
    assert journal.get(key).scores["d"].loss == 2.0
    for found in journal.records.values():
        recall(POOL, found)
        assert all(score.loss == score.loss for score in journal.get(found["key"]).scores.values())


@pytest.mark.slow
def test_a_line_of_the_journal_is_bounded(tmp_path: Path) -> None:
    whole = json.dumps({"digest": _digest(record()), **record()}).encode()
    with (tmp_path / "trials.jsonl").open("wb") as stream:
        stream.truncate(400 << 20)
        stream.seek(0, 2)
        stream.write(b"\n" + whole + b"\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom ablate.search.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\nprint(journal.damaged, len(journal.records))"
    )
    line, peak = peak_of(code, tmp_path / "trials.jsonl")
    print(f"a line of 400 MB: peak {peak:.0f} MB")
    assert line == "1 1" and peak < 800
