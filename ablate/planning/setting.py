"""All that the time of a stage follows from, and what starts cost."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.planning.hardware import Hardware
from ablate.planning.memory import Memory
from ablate.planning.places import Places
from ablate.planning.work import Work
from ablate.resources import Cluster
from ablate.study import Study

# Seconds of a free CPU that starts take, mostly imports; seen with ray 2.60 on two cores.
RAY_START = 6.0
TASK_START = 8.0
GROUP_START = 18.0
EVALUATOR_START = 12.0
MODEL_START = 2.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's wall time in seconds, None where it does not fit; `basis` says what it rests on."""

    name: str
    seconds: float | None
    basis: str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that the time of a stage follows from."""

    study: Study
    cluster: Cluster
    work: Work
    hardware: Hardware
    places: Places
    memory: Memory


def makespan(seconds: Sequence[float], lanes: int) -> float:
    """Return when the last of some runs ends, each begun in order by the first free lane."""
    ends = [0.0] * max(1, min(lanes, len(seconds)))  # a lane beyond the runs begins none
    for one in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)
