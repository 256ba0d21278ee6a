"""Peak memory of a whole preparation, in a process of its own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import study_of, texts, write_lines

from ablate.study import to_yaml

CODE = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from corpora import make
from ablate.study import load_study
for path in sys.argv[3:]:
    make(load_study(path))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_corpus(path: Path, megabytes: int) -> None:
    """Write documents of 4 kB of words from one vocabulary of 30,000."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(30000)]
    with path.open("w") as stream:
        for _ in range(megabytes * 250):
            text = " ".join(rng.choices(vocabulary, k=640))
            stream.write(json.dumps({"text": text}) + "\n")


def peaks(folder: Path, megabytes: list[int]) -> list[float]:
    """Return the peak resident megabytes of one process after corpora of growing size."""
    studies = []
    for size in megabytes:
        home = folder / str(size)
        home.mkdir()
        write_corpus(home / "big.jsonl", size)
        write_lines(home / "news.jsonl", texts("news", 20))
        sources = [{"path": str(home / "big.jsonl"), "partition": "big"}]
        study = study_of(
            home,
            sources,
            domains={"news": str(home / "news.jsonl")},
            corpus={"unit_tokens": 50_000, "heldout": {"documents": 0.01}},
        )
        path = home / "study.yaml"
        path.write_text(to_yaml(study))
        studies.append(str(path))
    found = subprocess.run(
        [sys.executable, "-c", CODE, "-", str(Path(__file__).parent), *studies],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) / 1024 for line in found.stdout.split()]


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    small, large = peaks(tmp_path, [1, 6])
    print(f"peak {small:.0f} MB for 1 MB of text, {large:.0f} MB for 6 MB")
    assert large - small < 100


@pytest.mark.slow
def test_memory_of_two_hundred_megabytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = peaks(tmp_path, [10, 200])
    with capsys.disabled():
        print(f"\npeak {small:.0f} MB for 10 MB of text, {large:.0f} MB for 200 MB")
    assert large - small < 150
