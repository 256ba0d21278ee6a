"""Every kind of workspace file cut, altered, gone, or another study's: rebuilt, or refused by name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ablate import engine
from ablate.cluster.session import session
from ablate.errors import UserError
from ablate.resources import Cluster
from ablate.study import load_study
from tests.faults.disturbing import VALIDATED, injections, numbers

pytestmark = pytest.mark.faults
FISHER = (*VALIDATED, "search.merge={alternatives: [{method: fisher}]}")
OTHER = (*FISHER, "seed.tokens=20_000", "tokenizer.train.vocab_size=400")

KINDS = (
    "study.yaml",
    "corpus/corpus.json",
    "corpus/@seed/train.arrow",
    "corpus/@tokenizer/tokenizer.json",
    "corpus/@tokenizer/tokenizer_config.json",
    "corpus/python/train.arrow",
    "corpus/python/heldout.arrow",
    "corpus/reference/evaluation.arrow",
    "models/seed-*/config.json",
    "models/seed-*/model.safetensors",
    "models/seed-*/training.json",
    "models/unit-python-1-*/config.json",
    "models/unit-python-1-*/model.safetensors",
    "models/unit-python-1-*/tokenizer.json",
    "models/unit-python-1-*/tokenizer_config.json",
    "models/unit-python-1-*/training.json",
    "models/trained-*/model.safetensors",
    "models/trained-*/training.json",
    "likelihoods/*/*.safetensors",
    "statistics/*.safetensors",
    "pool.json",
    "trials.jsonl",
    "trials.parquet",
    "agreement.json",
    "report.html",
    "logs/search.jsonl",
    "logs/train-unit-python-1-*.jsonl",
)


def cut(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    file.write_bytes(data)


def empty(file: Path, other: Path) -> None:
    file.write_bytes(b"")


def delete(file: Path, other: Path) -> None:
    file.unlink()


def swap(file: Path, other: Path) -> None:
    shutil.copyfile(other, file)


def make_a_folder(file: Path, other: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = (cut, flip_a_bit, empty, delete, swap, make_a_folder)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with session(Cluster(cpus=2)):
        yield


@pytest.fixture(scope="module")
def whole(undisturbed: Callable[..., Path]) -> Path:
    return undisturbed(FISHER)


@pytest.fixture(scope="module")
def other(undisturbed: Callable[..., Path]) -> Path:
    return undisturbed(OTHER)


def first(work: Path, kind: str) -> Path:
    return sorted(work.glob(kind))[0]


def test_the_kinds_are_all_there_are(whole: Path) -> None:
    masked = re.compile(r"-[0-9a-f]{12}")
    known = {masked.sub("-*", str(first(whole, kind).relative_to(whole))) for kind in KINDS}
    shapes = {re.sub(r"[^/]+(?=/|$)", _shape, name) for name in known}
    for file in whole.rglob("*"):
        name = masked.sub("-*", str(file.relative_to(whole)))
        if file.is_file() and name != ".lock":
            assert re.sub(r"[^/]+(?=/|$)", _shape, name) in shapes, name


def _shape(part: re.Match[str]) -> str:
    """Return a name's kind: partitions, units and fingerprints left out."""
    name = re.sub(r"(seed|unit|trained)-[^.]*", "model", part[0])
    name = re.sub(r"^(prepare|train|search|validate|report)\.jsonl$", "stage.jsonl", name)
    return re.sub(r"python|headers|sessions|[0-9a-f]{12}", "_", name).replace("*", "")


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_rebuilt_or_refused_by_name(
    kind: str, damage: Callable[[Path, Path], None], whole: Path, other: Path
) -> None:
    root = whole.parent
    study = load_study(root / "study.yaml", FISHER)
    reference = numbers(whole)
    kept = shutil.copytree(whole, root / "kept")
    try:
        file = first(whole, kind)
        damage(file, first(other, kind))
        injections[f"{damage.__name__.replace('_', ' ')}: {Path(kind).name}"] += 1
        try:
            engine.run(study, cluster=Cluster(cpus=2))
        except UserError as error:
            assert file.name in str(error) or str(file.parent) in str(error), error
            if file.is_dir():
                file.rmdir()
            else:
                file.unlink()  # what the message says
            engine.run(study, cluster=Cluster(cpus=2))
        assert numbers(whole) == reference
    finally:
        shutil.rmtree(whole)
        kept.rename(whole)
