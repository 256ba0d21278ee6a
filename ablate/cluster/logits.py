"""The logit-averaged ensembles of mixtures by Ray tasks, one for each domain."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import ray

from ablate.cluster.pool import Member, Store
from ablate.cluster.session import results
from ablate.evaluate.blocks import Domain
from ablate.evaluate.logit_ensemble import logit_ensemble
from ablate.evaluate.scorer import Scorer, ScorerSettings
from ablate.evaluate.statistics import DomainScore
from ablate.progress import bar
from ablate.resources import Cluster

Coefficients = tuple[tuple[Member, float], ...]
Scores = tuple[list[DomainScore], float]


def averaged_logits(
    wanted: Sequence[tuple[Domain, Sequence[Coefficients]]],
    store: Store,
    settings: ScorerSettings,
    cluster: Cluster,
) -> Iterator[tuple[str, list[DomainScore], float]]:
    """Yield (domain, score of each of its mixtures, seconds) as domains are done.

    `wanted` are domains with the units' weights in each mixture. Raises RunError when a task is
    lost for good, and what a task raises on purpose.
    """
    task = ray.remote(num_cpus=cluster.trial.cpus, num_gpus=cluster.trial.gpus, max_retries=3)(
        _scored
    )
    desk = ray.put((store, settings))
    open_tasks = {task.remote(domain, list(of), desk): domain.name for domain, of in wanted}
    with bar("logits", len(wanted)) as advance:
        while open_tasks:
            ready, _ = ray.wait(list(open_tasks), num_returns=1, timeout=0.5)
            for reference in ready:
                name = open_tasks.pop(reference)
                ((scores, seconds),) = results([reference])
                yield name, scores, seconds
            advance(len(wanted) - len(open_tasks), "")


def _scored(
    domain: Domain, mixtures: list[Coefficients], desk: tuple[Store, ScorerSettings]
) -> Scores:
    store, settings = desk
    members, weights = _matrix(mixtures)
    units = store.vectors(members)
    scorer = Scorer(settings, [domain])
    started = time.perf_counter()
    scores = logit_ensemble(scorer, domain.name, units, weights)
    return scores, time.perf_counter() - started


def _matrix(mixtures: Sequence[Coefficients]) -> tuple[list[Member], np.ndarray]:
    """Return the units of some mixtures and their weights, [mixtures, units]."""
    by_member: list[Mapping[Member, float]] = [dict(of) for of in mixtures]
    members = sorted({member for of in by_member for member in of})
    return members, np.array([[of.get(member, 0.0) for member in members] for of in by_member])
