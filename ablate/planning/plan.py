"""A plan: the study's work, and what it takes on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ablate.planning.forecast import Forecast, forecast_of
from ablate.planning.work import Work, work_of
from ablate.resources import Cluster
from ablate.study import Study


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `run` would do, and its time, memory, traffic and cost."""

    work: Work
    forecast: Forecast

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the work's keys, and `forecast`."""
        return {**self.work.to_json(), "forecast": self.forecast.to_json()}


def plan(study: Study, *, cluster: Cluster | None = None) -> Plan:
    """Return what `run` would do and take. Raises the errors that it would raise before training.

    Changes nothing; measures this machine for some seconds where the cluster file leaves a rate
    open.
    """
    where = cluster or Cluster()
    work = work_of(study, cluster=where)
    return Plan(work=work, forecast=forecast_of(study, where, work))
