"""What a merge method asks of each unit, gathered by Ray tasks and held in the object store."""

from __future__ import annotations

from dataclasses import replace

from ablate.cluster.pool import SEED, Store, made_by_tasks
from ablate.corpus import Corpus
from ablate.evaluate.gathering import Sample, gathered, unit_sample
from ablate.merge import Statistics
from ablate.models.pool import ModelPool
from ablate.resources import Cluster
from ablate.study import Study


def with_statistics(
    store: Store,
    study: Study,
    corpus: Corpus,
    pool: ModelPool,
    kind: Statistics,
    cluster: Cluster,
) -> Store:
    """Return the store with references to one kind of statistics of every unit in it.

    Where evaluators have GPUs each unit's task has a whole one.

    Raises StudyError for a unit whose training text is not in the corpus.
    """
    gpus = cluster.trial.whole_gpus
    samples = {
        member: unit_sample(member, study, corpus, pool, kind, gpus)
        for member in store.references
        if member != SEED
    }
    if gpus:
        # What is held in the store is then read from the workspace, without a GPU: it is read again
        # when a node takes the only copy with it, and by then evaluators have every GPU.
        made_by_tasks(_keep, {m: (sample,) for m, sample in samples.items()}, kind, gpus=gpus)
    asked = {member: (replace(sample, gpus=0),) for member, sample in samples.items()}
    references = made_by_tasks(gathered, asked, f"{kind}, read" if gpus else kind)
    return replace(store, statistics={**store.statistics, kind: references})


def _keep(sample: Sample) -> None:
    gathered(sample)
