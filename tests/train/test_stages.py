"""From study and corpus to jobs: ranges, fingerprints, what is skipped."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ablate.corpus.values import Corpus, PartitionInfo, TokenFile, TokenizerInfo
from ablate.errors import StudyError
from ablate.study import Study
from ablate.train.stages import is_complete, seed_job, unit_jobs
from ablate.workspace import Workspace

BASE: dict[str, Any] = {
    "name": "s",
    "workspace": "w",
    "corpus": {"sources": [{"path": "a", "partition": "a"}], "unit_tokens": 1000},
    "tokenizer": {"path": "t"},
    "model": {"preset": "tiny"},
    "seed": {"sources": [{"path": "a"}]},
    "train": {"sequence_length": 10, "batch_tokens": 100},
}


def study(**sections: Any) -> Study:
    return Study.model_validate({**BASE, **sections})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def partition(name: str, tokens: int, units: int, short: int | None = None) -> PartitionInfo:
    return PartitionInfo(
        name=name,
        slug=name,
        documents=1,
        tokens=tokens,
        bytes=tokens,
        units=units,
        unit_tokens=(short,) if short else (1000,) * units,
        unit_digests=tuple(digest(f"{name}{i}") for i in range(units)),
        unused_tokens=0,
        dropped={},
        unchecked=0,
        heldout_documents=0,
        heldout_dropped=0,
        train=TokenFile(path=f"corpus/{name}/train.arrow", tokens=tokens, digest=digest(name)),
    )


def corpus(*partitions: PartitionInfo) -> Corpus:
    return Corpus(
        fingerprint="c",
        tokenizer=TokenizerInfo(fingerprint="t", vocab_size=500, eos_token_id=0),
        partitions={info.name: info for info in partitions},
        domains={},
        seed=TokenFile(path="corpus/@seed/train.arrow", tokens=5000, digest=digest("seed")),
        seed_dropped={},
        inputs={},
    )


def jobs_of(question: Study, *partitions: PartitionInfo) -> dict[str, Any]:
    found = unit_jobs(question, corpus(*partitions), Workspace(Path("w")), "mark", "seed")
    return {f"{job.metadata['partition']}/{job.metadata['unit']}": job for job in found}


def test_units_are_consecutive_ranges_of_their_partition() -> None:
    jobs = jobs_of(study(), partition("b", 3500, 3), partition("a", 1000, 1))
    assert list(jobs) == ["a/0", "b/0", "b/1", "b/2"]
    assert [(p.start, p.stop) for p in jobs["b/2"].slices] == [(2000, 3000)]
    assert jobs["b/2"].recipe.steps == 10
    assert len({job.folder for job in jobs.values()}) == 4


def test_adding_a_partition_changes_no_other_job() -> None:
    before = jobs_of(study(), partition("b", 3500, 3))
    after = jobs_of(study(), partition("a", 1000, 1), partition("b", 3500, 3))
    assert {key: after[key] for key in before} == before


def test_growing_a_partition_keeps_its_first_units() -> None:
    before = jobs_of(study(), partition("b", 1500, 1))["b/0"]
    after = jobs_of(study(), partition("b", 2500, 2))["b/0"]
    assert (before.fingerprint, before.folder) == (after.fingerprint, after.folder)


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-3}, {"precision": "bf16"}, {"tokens_per_unit": 500}]
)
def test_the_recipe_is_part_of_the_fingerprint(change: dict[str, Any]) -> None:
    other = study(train={**BASE["train"], **change})
    part = partition("a", 1000, 1)
    assert jobs_of(study(), part)["a/0"].fingerprint != jobs_of(other, part)["a/0"].fingerprint


def test_a_short_unit_repeats_or_is_short() -> None:
    info = partition("a", 400, 1, short=400)
    allowed = jobs_of(study(corpus={**BASE["corpus"], "short_units": "allow"}), info)["a/0"]
    repeated = jobs_of(study(corpus={**BASE["corpus"], "short_units": "repeat"}), info)["a/0"]
    assert [(p.start, p.stop) for p in allowed.slices] == [(0, 400)]
    assert [(p.start, p.stop) for p in repeated.slices] == [(0, 400), (0, 400), (0, 200)]
    assert (allowed.recipe.steps, repeated.recipe.steps) == (4, 10)


def test_the_seed_is_trained_on_its_own_sources() -> None:
    job = seed_job(study(), corpus(), Workspace(Path("w")))
    assert job is not None and job.kind == "seed"
    assert job.recipe.tokens == 5000
    assert job.path.name == f"seed-{job.fingerprint}"
    assert job.start.folder is None and job.start.vocab_size == 500


def test_a_given_checkpoint_without_seed_sources_is_the_seed() -> None:
    question = study(model={"path": "org/model"}, seed={}, tokenizer={})
    assert seed_job(question, corpus(), Workspace(Path("w"))) is None


def test_carried_moments_come_from_the_seeds_folder(tmp_path: Path) -> None:
    carry = {**BASE["train"], "carry_moments": True}
    job = jobs_of(study(train=carry), partition("a", 1000, 1))["a/0"]
    assert job.start.moments == "seed/optimizer.safetensors"
    assert job.recipe.carry_moments
    seed = seed_job(study(train=carry), corpus(), Workspace(Path("w")))
    assert seed is not None and seed.save_moments
    given = study(train=carry, model={"path": "org/model"}, seed={}, tokenizer={})
    with pytest.raises(StudyError, match=r"carry_moments must be false for a seed without"):
        jobs_of(given, partition("a", 1000, 1))


def test_a_missing_or_foreign_folder_is_not_complete(tmp_path: Path) -> None:
    job = jobs_of(study(), partition("a", 1000, 1))["a/0"]
    assert not is_complete(tmp_path / "none", job)
    (tmp_path / "training.json").write_text('{"fingerprint": "other"}')
    assert not is_complete(tmp_path, job)
    (tmp_path / "training.json").write_text('{"fingerprint": "' + job.fingerprint + '"}')
    assert not is_complete(tmp_path, job)


def test_text_that_fills_no_sequence_is_refused_before_training() -> None:
    long = {"sequence_length": 6000, "batch_tokens": 6000}
    with pytest.raises(StudyError, match=r"unit 0 of partition 'a' must have .* got 1000 tokens"):
        jobs_of(study(train=long), partition("a", 1000, 1))
    with pytest.raises(StudyError, match=r"the seed's text must have .* got 5000 tokens"):
        seed_job(study(train=long), corpus(), Workspace(Path("w")))
