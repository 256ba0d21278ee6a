"""Tune's scheduler: which trial an idle evaluator gets, and which trials the race stops.

First come, first served, and no evaluator is given up: Tune on its own hands an idle process to the
oldest waiting trial, and drops the process that was being started for it. With short trials, the
evaluators that start last never come up. Here a trial whose process is starting is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class FirstCome(FIFOScheduler):  # type: ignore[misc]
    """Tune's order of submission, in time that does not grow with the trials that are done."""

    def __init__(self, stops: Callable[[str, dict[str, Any]], bool]) -> None:
        """`stops(trial_id, result)` says whether a trial that reported a stage ends there."""
        super().__init__()
        self._stops = stops
        self._waiting: dict[str, Trial] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Queue a trial that is new, or that is tried again."""
        self._waiting[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that its race is lost for."""
        lost = self._stops(trial.trial_id, result)
        return str(FIFOScheduler.STOP if lost else FIFOScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the oldest waiting trial for which no process is being started."""
        for name, trial in list(self._waiting.items()):
            if trial.status != Trial.PENDING:
                del self._waiting[name]
            elif not _is_starting(tune_controller, trial):
                return trial
        return None


def _is_starting(controller: Any, trial: Trial) -> bool:
    """Return whether a process has been started for a waiting trial (Tune has no public way)."""
    process = controller._trial_to_actor.get(trial)
    return process is not None and controller._actor_manager.is_actor_started(process)
