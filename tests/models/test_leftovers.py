"""`clean` and `status` while units are in training: what a run goes on with is never left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.corpus import Corpus
from ablate.corpus.tokenizer import export_tokenizer, train_tokenizer
from ablate.imports import import_seed
from ablate.models.pool import SeedModel
from ablate.status import clean, garbage, status
from ablate.study import Study
from ablate.train.job import TrainingJob
from ablate.train.stages import unit_jobs
from tests.corpus.corpora import make, study_of, texts, write_lines
from tests.models.families import saved


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study whose seed is a checkpoint that stands already."""
    saved(tmp_path / "seed-model")
    export_tokenizer(train_tokenizer(texts("a", 60), 300), tmp_path / "tokenizer")
    write_lines(tmp_path / "a.jsonl", texts("a", 60))
    return study_of(
        tmp_path,
        [{"path": str(tmp_path / "a.jsonl"), "partition": "a"}],
        model={"path": str(tmp_path / "seed-model")},
        seed={},
        tokenizer={"path": str(tmp_path / "tokenizer")},
        train={"sequence_length": 16, "batch_tokens": 64},
    )


def begun(study: Study, corpus: Corpus, seed: SeedModel) -> list[TrainingJob]:
    """Leave what an interrupted training leaves: finished units, and a state of one that is not."""
    workspace = study.open_workspace()
    folder = workspace.root / seed.folder
    jobs = unit_jobs(study, corpus, workspace, seed.fingerprint, folder)
    for job in jobs[:-1]:
        job.path.mkdir()
    Path(jobs[-1].resume_folder).mkdir()
    return jobs


def test_units_of_an_imported_seed_are_kept_before_there_is_a_pool(study: Study) -> None:
    corpus, workspace = make(study), study.open_workspace()
    seed = import_seed(study, corpus, workspace)
    jobs = begun(study, corpus, seed)
    (workspace.models / "unit-old-0-0123456789ab").mkdir()
    there = sorted(path.name for path in workspace.models.iterdir())
    found = status(study)
    assert found.units == len(jobs) > 2 and found.seed_trained and found.next == "train"
    assert [path.name for path in clean(study).folders] == ["unit-old-0-0123456789ab"]
    there.remove("unit-old-0-0123456789ab")
    assert sorted(path.name for path in workspace.models.iterdir()) == there


@pytest.mark.parametrize("missing", ["seed", "corpus", "path"])
def test_every_model_is_kept_while_the_seed_is_not_known(study: Study, missing: str) -> None:
    corpus, workspace = make(study), study.open_workspace()
    seed = import_seed(study, corpus, workspace)
    begun(study, corpus, seed)
    if missing == "seed":
        (workspace.root / seed.folder / "training.json").unlink()
    elif missing == "corpus":
        workspace.corpus_json.unlink()
    else:
        moved = {"preset": None, "path": "elsewhere"}
        study = study.model_copy(update={"model": study.model.model_copy(update=moved)})
    assert not [path for path in garbage(study).folders if path.parent == workspace.models]
    assert status(study).units == 0
