"""A Ray Tune search: every question is a trial; its process keeps its model between trials.

Tune's own storage is scratch. Results reach the journal through the driver as they finish.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from ablate.cluster.evaluator import Desk, EvaluatorProcess
from ablate.cluster.pool import Store
from ablate.cluster.room import Shortage, bundle_of, evaluators_at_once
from ablate.cluster.scheduling import FirstCome
from ablate.cluster.session import scratch_folder
from ablate.errors import OwnCodeError, RunError
from ablate.evaluate.blocks import Domain
from ablate.evaluate.scorer import ScorerSettings
from ablate.evaluate.statistics import DomainScore
from ablate.progress import bar, note, tell
from ablate.resources import Cluster, TrialResources
from ablate.search.conversation import Pause
from ablate.search.journal import Scored
from ablate.search.questions import Question, Questions

ERROR_LENGTH = 500
OWN_CODE = f"{OwnCodeError.__module__}.{OwnCodeError.__qualname__}: "
FINISHED: str = Searcher.FINISHED


def run_trials(
    questions: Questions,
    *,
    cluster: Cluster,
    settings: ScorerSettings,
    domains: list[Domain],
    store: Store,
    total: int,
) -> None:
    """Answer every question by Tune trials; the journal has each answer when its trial ends.

    `store` holds object references of flat vectors. `total` is what the progress bar counts to.
    """
    # Tune stops an idle evaluator unless a trial is staged for it: keep one staged for each, beside
    # those whose process is starting.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(2 * evaluators_at_once(cluster))
    with scratch_folder(cluster) as scratch, bar("search", total) as advance:
        searcher = _Asker(questions, advance, total, cluster.trial)
        trainable = tune.with_parameters(
            EvaluatorProcess,
            desk=Desk(
                run=scratch.name,
                settings=settings,
                domains=domains,
                marks=dict(questions.domain_marks),
                store=store,
                stages=questions.stages,
                timeout_seconds=cluster.trial.timeout_seconds,
            ),
        )
        resources = {"cpu": cluster.trial.cpus, "gpu": cluster.trial.gpus}
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=FirstCome(searcher.stops),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=cluster.trial.concurrent,
                trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                # The asker asks again: Tune would not, for a process that dies while handed over.
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[_Watch(searcher, cluster)],
            ),
        )
        _fit(tuner, searcher)
        if searcher.broken is not None:
            raise searcher.broken
        advance(total, "")
        searcher.say_failures()


def _fit(tuner: tune.Tuner, asker: _Asker) -> None:
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuner.fit()
    except tune.TuneError as error:
        raise asker.broken or RunError(f"the search stopped: {error}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _DriverOnly:
    """Stays in the driver: Tune stores a state that nobody restores, so it is stored as None."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class _Asker(_DriverOnly, Searcher):  # type: ignore[misc]
    """Questions as Tune's suggestions, results as their answers."""

    def __init__(
        self, questions: Questions, advance: Any, total: int, limits: TrialResources
    ) -> None:
        super().__init__(metric="answer", mode="min")
        self._questions = questions
        self._advance = advance
        self._total = total
        self._open: dict[str, Question] = {}
        self._lost: dict[str, Scored] = {}
        self._limits = limits
        self._since: dict[str, float] = {}
        self._halvings: Counter[str] = Counter()
        self._again: deque[Question] = deque()
        self._tries: Counter[str] = Counter()
        self._hangs: Counter[str] = Counter()
        self._failures: list[tuple[Question, str]] = []
        self.broken: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a trial's config, None to wait, or FINISHED."""
        if self.broken is not None:
            return FINISHED
        question = self._again.popleft() if self._again else self._questions.next()
        if question is Pause.DONE:
            # Tune may ask once more while trials are open: their answers may bring new questions.
            return None if self._open else FINISHED
        if isinstance(question, Pause):
            return None
        self._open[trial_id] = question
        candidate = question.candidate
        return {
            "members": [[name, i, share] for (name, i), share in candidate.coefficients],
            "identities": self._questions.identities(candidate),
            "seed": candidate.seed_coefficient,
            "method": candidate.method,
            "options": dict(candidate.options),
            "domains": list(question.domains),
            "keep_tokens": question.keep_tokens,
            "slopes": list(question.slopes),
            "raced": question.ticket is not None,
            "halvings": self._halvings[candidate.key],
        }

    def stops(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether the race stops a trial after the stage that it reports."""
        answer = json.loads(result["answer"])
        nats = {name: np.array(values) for name, values in answer["nats"].items()}
        scored = self._questions.judge(self._open[trial_id], answer["stage"], nats)
        if scored is None:
            return False
        self._lost[trial_id] = replace(
            scored,
            merge_seconds=answer["merge_seconds"],
            evaluate_seconds=answer["evaluate_seconds"],
        )
        return True

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take a result; an error's text comes through `fail`."""
        if error or result is None or "answer" not in result:
            return
        answer = json.loads(result["answer"])
        if "failure" in answer:
            self.fail(trial_id, answer["failure"])
            return
        question = self._open.pop(trial_id)
        lost = self._lost.pop(trial_id, None)
        if lost is not None:
            self._answer(question, lost)
            return
        self._answer(question, _scored(question, answer, self._questions.domain_marks))

    def seen(self, trial_id: str) -> None:
        """Note that a trial has begun, or reported a stage."""
        self._since[trial_id] = time.monotonic()

    def hung(self, trial_id: str) -> bool:
        """Return whether a trial whose process died had reached its time limit."""
        since = self._since.get(trial_id)
        return since is not None and time.monotonic() - since >= self._limits.timeout_seconds

    def retry(self, trial_id: str, *, smaller: bool = False) -> bool:
        """Ask an open trial's question once more; return False when it has been tried enough.

        `smaller` asks for half the batch: the process was ended for its memory. What hangs is
        tried twice at most; lost processes are counted apart, they say nothing about the trial.
        """
        question = self._open.get(trial_id)
        if question is None:
            return False
        key, most = question.candidate.key, self._limits.retries
        counted, most = (self._hangs, min(most, 1)) if self.hung(trial_id) else (self._tries, most)
        if counted[key] >= most:
            return False
        counted[key] += 1
        self._halvings[key] += smaller
        number = self._tries[key] + self._hangs[key]
        tell("retry", trial=key, number=number, smaller=smaller)
        self._again.append(self._open.pop(trial_id))
        return True

    def fail(self, trial_id: str, reason: str) -> None:
        """Record a trial that failed; the search goes on."""
        question = self._open.pop(trial_id, None)
        if question is not None:
            self._failures.append((question, reason))
            self._answer(question, Scored(key=question.candidate.key, error=reason))

    def say_failures(self) -> None:
        """Say how many trials failed, and why the first did: those of the seed and units before."""
        if not self._failures:
            return
        question, reason = min(self._failures, key=lambda one: one[0].candidate.kind == "proxy")
        candidate = question.candidate
        (member, _), *_ = candidate.coefficients or [(("", 0), 0.0)]
        named = {"seed": "the seed", "unit": f"unit {member[0]} {member[1]}"}
        members = " + ".join(candidate.mixture.partitions) if candidate.mixture else ""
        what = named.get(candidate.kind, members)
        note(
            f"{len(self._failures):,} of {self._questions.answers:,} trials failed, {what}: "
            f"{reason}; run it again to ask them once more"
        )

    def _answer(self, question: Question, scored: Scored) -> None:
        try:
            self._questions.answered(question, scored)
        except Exception as error:
            # Tune would count the driver's own failure (a full disk) as the trial's and go on.
            self.broken = error
            raise
        best = self._questions.best
        detail = "" if best is None else f"best {best:.4f}"
        self._advance(min(self._questions.answers, self._total), detail)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: the journal is the state."""


class _Watch(_DriverOnly, tune.Callback):  # type: ignore[misc]
    """Tell the asker when trials begin, why their processes died, and that no node is left."""

    def __init__(self, asker: _Asker, cluster: Cluster) -> None:
        self._asker = asker
        bundle = bundle_of(cluster.trial.cpus, cluster.trial.gpus)
        self._shortage = Shortage("evaluator", bundle, 1, cluster)

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """End a search that has had no room for an evaluator for too long: Tune would wait."""
        try:
            self._shortage.look()
        except RunError as error:
            self._asker.broken = error
            raise

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Note when a trial begins."""
        self._asker.seen(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note when a trial reports."""
        self._asker.seen(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Try the trial again, or record why its process died: the last line of what it raised."""
        file = Path(trial.error_file or "")
        text = file.read_text(errors="replace") if file.is_file() else ""
        hung = self._asker.hung(trial.trial_id)
        if self._asker.retry(trial.trial_id, smaller=_lacked_memory(text)):
            return
        lines = text.strip().splitlines() or ["the evaluator died"]
        reason = "it took longer than trial.timeout_seconds" if hung else lines[-1].strip()
        self._asker.fail(trial.trial_id, reason.removeprefix(OWN_CODE)[:ERROR_LENGTH])


def _lacked_memory(text: str) -> bool:
    """Return whether Ray ended a process because its node ran out of memory."""
    return any(mark in text for mark in ("OutOfMemoryError", "running low on memory"))


def _scored(question: Question, result: dict[str, Any], marks: Mapping[str, str]) -> Scored:
    return Scored(
        key=question.candidate.key,
        scores={
            marks[name]: DomainScore.from_json(value) for name, value in result["scores"].items()
        },
        slopes={marks[name]: slopes for name, slopes in result["slopes"].items()},
        merge_seconds=result["merge_seconds"],
        evaluate_seconds=result["evaluate_seconds"],
    )
