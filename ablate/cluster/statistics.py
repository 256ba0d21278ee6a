"""What a merge method asks of each unit, gathered by Ray tasks and held in the object store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from ablate.cluster.pool import SEED, Member, Store, wait_for
from ablate.corpus import Corpus
from ablate.errors import StudyError
from ablate.evaluate.gathering import SEQUENCES, Sample, gathered
from ablate.merge import Statistics
from ablate.models.pool import ModelPool
from ablate.study import Study


def with_statistics(
    store: Store, study: Study, corpus: Corpus, pool: ModelPool, kind: Statistics
) -> Store:
    """Return the store with references to one kind of statistics of every unit in it.

    Raises StudyError for a unit whose training text is not in the corpus.
    """
    task = ray.remote(num_cpus=1, max_retries=3)(gathered)
    references: dict[Member, Any] = {
        member: task.remote(_sample(member, study, corpus, pool, kind))
        for member in store.references
        if member != SEED
    }
    wait_for(list(references.values()), kind)
    return replace(store, statistics={**store.statistics, kind: references})


def _sample(
    member: Member, study: Study, corpus: Corpus, pool: ModelPool, kind: Statistics
) -> Sample:
    name, index = member
    info, unit = corpus.partitions.get(name), pool.by_member[member]
    if info is None:
        raise StudyError(
            f"search.merge.method '{kind}' must have every unit's training text, got none for "
            f"'{name}', which was brought in; use linear, ties or dare"
        )
    length = study.train.sequence_length
    start = index * study.corpus.unit_tokens
    stop = min(start + SEQUENCES * length, start + study.corpus.unit_tokens, info.train.tokens)
    return Sample(
        root=Path(pool.root),
        folder=unit.folder,
        model_digest=unit.digest,
        fingerprint=unit.fingerprint,
        kind=kind,
        file=info.train,
        start=start,
        stop=stop,
        length=length,
        threads=1,
        trust_remote_code=study.model.trust_remote_code,
    )
