"""What a merge method asks of each unit, gathered by Ray tasks and held in the object store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray

from ablate.cluster.pool import SEED, Member, Store, wait_for
from ablate.corpus import Corpus
from ablate.evaluate.gathering import gathered, unit_sample
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
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=3)(gathered)
    references: dict[Member, Any] = {
        member: task.remote(unit_sample(member, study, corpus, pool, kind, gpus))
        for member in store.references
        if member != SEED
    }
    wait_for(list(references.values()), kind)
    return replace(store, statistics={**store.statistics, kind: references})
