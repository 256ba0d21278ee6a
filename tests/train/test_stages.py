"""From study and corpus to jobs: ranges, fingerprints, what is skipped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.corpus.values import Corpus, PartitionInfo, TokenFile, TokenizerInfo
from ablate.errors import CheckpointError, StudyError
from ablate.mixture import Mixture
from ablate.models.pool import SeedModel
from ablate.models.sources import resolve_folder
from ablate.search.candidates import describe
from ablate.study import Study, ValidateSettings
from ablate.train.stages import (
    TrainedRun,
    checkpoint_start,
    is_complete,
    mixture_job,
    mixture_slices,
    seed_job,
    unit_jobs,
)
from ablate.validate.runs import candidate_of, recalled_run, trained_run
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


SEED = SeedModel(fingerprint="mark", folder="seed", digest="d")


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


def test_a_seed_trained_on_is_marked_by_weights_config_and_trusted_code(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    config = {"model_type": "llama", "rope_theta": 10000.0, "attention_dropout": 0.0}

    def mark(trusted: bool = False, **changes: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        return checkpoint_start(str(tmp_path), trust_remote_code=trusted).mark

    plain = mark()
    assert mark(transformers_version="9", dtype="bfloat16") == plain
    assert len({plain, mark(rope_theta=1e6), mark(attention_dropout=0.5)}) == 3
    (tmp_path / "code.py").write_text("x = 1")
    first = mark(trusted=True)
    (tmp_path / "code.py").write_text("x = 2")
    assert mark() == plain and len({plain, first, mark(trusted=True)}) == 3
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert mark() != plain


def test_a_seed_of_the_hub_is_marked_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    store = tmp_path / "models--org--model"
    (store / "refs").mkdir(parents=True)
    starts = {}
    first, second = "a" * 40, "b" * 40
    for commit in (first, second):
        (store / "snapshots" / commit).mkdir(parents=True)
        (store / "refs" / "main").write_text(commit)
        starts[commit] = checkpoint_start("org/model")
    assert starts[first].mark != starts[second].mark
    for commit, start in starts.items():  # what a worker reads, though the newest is another
        assert resolve_folder("org/model", revision=start.revision).name == commit
    with pytest.raises(CheckpointError, match=r"no hub model for 'org/none'"):
        checkpoint_start("org/none")


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


def slices_of(run: TrainedRun, *partitions: PartitionInfo) -> list[tuple[str, int, int]]:
    found = mixture_slices(study(), corpus(*partitions), run)
    return [(piece.path.split("/")[1], piece.start, piece.stop) for piece in found]


def test_a_mixture_is_trained_on_exactly_its_units_text() -> None:
    parts = (partition("a", 2500, 2), partition("b", 1500, 1), partition("c", 1000, 1))
    settings = ValidateSettings()
    mixture = Mixture.by_units(["a", "b"], {"a": 2, "b": 1})
    run = trained_run(study(), corpus(*parts), settings, mixture, 0)
    assert (run.tokens, run.text_tokens) == (3000, None)
    assert slices_of(run, *parts) == [("a", 0, 1000), ("a", 1000, 2000), ("b", 0, 1000)]
    job = mixture_job(study(), corpus(*parts), Workspace(Path("w")), SEED, run)
    units = {**jobs_of(study(), *parts)}
    assert [piece for name in ("a/0", "a/1", "b/0") for piece in units[name].slices] == [
        *job.slices
    ]
    assert job.recipe.tokens == 3000 and job.start.mark == units["a/0"].start.mark
    # Text that is added to another partition, or to this one beyond its units, changes nothing.
    more = (partition("a", 9000, 2), *parts[1:], partition("d", 1000, 1))
    again = mixture_job(study(), corpus(*more), Workspace(Path("w")), SEED, run)
    assert again.fingerprint == job.fingerprint


def test_other_weights_share_out_as_many_tokens_and_repeat_short_text() -> None:
    parts = (partition("a", 2500, 2), partition("b", 1500, 1))
    macro = Mixture.uniform(["a", "b"])
    run = trained_run(study(), corpus(*parts), ValidateSettings(), macro, 0)
    assert (run.tokens, run.text_tokens) == (3000, 3000)
    assert slices_of(run, *parts) == [
        ("a", 0, 1000), ("a", 1000, 1500), ("b", 0, 1000), ("b", 0, 500),
    ]  # fmt: skip
    fixed = trained_run(study(), corpus(*parts), ValidateSettings(tokens="fixed"), macro, 0)
    assert (fixed.tokens, slices_of(fixed, *parts)) == (1000, [("a", 0, 500), ("b", 0, 500)])
    longer = ValidateSettings(tokens="fixed", total_tokens=2400)
    assert trained_run(study(), corpus(*parts), longer, macro, 0).tokens == 2400


def test_replicates_differ_in_the_order_of_their_text_alone() -> None:
    parts = (partition("a", 1000, 1), partition("b", 1000, 1))
    mixture = Mixture.uniform(["a", "b"])
    jobs = []
    for replicate in range(2):
        run = trained_run(study(), corpus(*parts), ValidateSettings(), mixture, replicate)
        jobs.append(mixture_job(study(), corpus(*parts), Workspace(Path("w")), SEED, run))
        candidate = candidate_of(jobs[-1], run)
        record = {**describe(candidate), "key": candidate.key}
        assert recalled_run(json.loads(json.dumps(record))) == run
    assert jobs[0].slices == jobs[1].slices and jobs[0].fingerprint != jobs[1].fingerprint
    assert jobs[1].recipe == replace(jobs[0].recipe, rng_seed=1)


def test_a_mixture_of_units_without_text_is_refused() -> None:
    run = TrainedRun(mixture=Mixture.uniform(["a", "q"]), tokens=100, text_tokens=None, rng_seed=0)
    with pytest.raises(StudyError, match="'q'"):
        mixture_slices(study(), corpus(partition("a", 1000, 1)), run)


def test_replayed_text_is_a_share_of_the_tokens_and_depends_on_the_unit_alone() -> None:
    replay = study(train={**BASE["train"], "replay": {"fraction": 0.75, "from": "seed"}})
    a, b = partition("a", 1000, 1), partition("b", 2000, 2)
    jobs = jobs_of(replay, a, b)
    for name, job in jobs.items():
        own, *seed = job.slices
        assert own == jobs_of(study(), a, b)[name].slices[0]
        assert {piece.path for piece in seed} == {"corpus/@seed/train.arrow"}
        assert sum(piece.tokens for piece in seed) == 3000 and job.recipe.tokens == 4000
        assert all(0 <= piece.start < piece.stop <= 5000 for piece in seed)
    assert len({job.slices[1].start for job in jobs.values()}) == 3
    more = jobs_of(replay, a, partition("aa", 1000, 1), b)
    assert all(more[name].fingerprint == job.fingerprint for name, job in jobs.items())
    assert jobs["a/0"].fingerprint != jobs_of(study(), a)["a/0"].fingerprint
    # What is trained for real has no replay: it is the truth that units are to predict.
    run = trained_run(replay, corpus(a, b), ValidateSettings(), Mixture.uniform(["a"]), 0)
    job = mixture_job(replay, corpus(a, b), Workspace(Path("w")), SEED, run)
    assert job.recipe.tokens == 1000 and len(job.slices) == 1


def test_replay_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.replay"):
        study(
            model={"path": "m"},
            seed={},
            train={**BASE["train"], "replay": {"fraction": 0.5, "from": "seed"}},
        )
