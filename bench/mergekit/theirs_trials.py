"""Time mergekit-evolve's trials; run in its own environment: theirs_trials.py SPEC.json.

SPEC names `models` (folders), `weights` [mixtures][models], `task` (an lm_eval task's folder),
`task_name` and `best` (true: its best case). Prints JSON: CPU seconds of each trial, of which merging and
scoring, and its bits per byte. Its own class does the work, called without Ray, in this process.

Best case: documents are scored in batches of eight (its in-memory mode ignores the option), the
model and its log-probabilities are float32 (bfloat16 is slow on most CPUs, and too coarse), and the
environment is not described at each trial.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from pathlib import Path

import lm_eval.evaluator
import lm_eval.models.huggingface
import lm_eval.tasks
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from mergekit.evo import actors
from mergekit.evo.config import EvolMergeConfiguration
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition
from mergekit.graph import Executor
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner


class Spent:
    """CPU seconds by kind of work."""

    def __init__(self) -> None:
        self.seconds = {"merge": 0.0, "score": 0.0}

    def count(self, kind: str, work):
        """Return the function, its time counted."""

        @functools.wraps(work)
        def counted(*arguments, **named):
            started = time.process_time()
            try:
                return work(*arguments, **named)
            finally:
                self.seconds[kind] += time.process_time() - started

        return counted

    def count_items(self, work):
        """Return a generator function whose steps count as merging."""

        @functools.wraps(work)
        def counted(*arguments, **named):
            items = iter(work(*arguments, **named))
            while True:
                started = time.process_time()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self.seconds["merge"] += time.process_time() - started
                yield item

        return counted


def main(spec: dict) -> None:
    """Print what the trials took."""
    torch.set_num_threads(1)
    if spec["best"]:
        _best_case()
    spent = Spent()
    MergePlanner.plan_in_memory = spent.count("merge", MergePlanner.plan_in_memory)
    Executor.run = spent.count_items(Executor.run)
    HFLM._loglikelihood_tokens = spent.count("score", HFLM._loglikelihood_tokens)
    definition = ModelGenomeDefinition(models=spec["models"], merge_method="linear", normalize=True)
    genome = ModelGenome(definition)
    task = {"name": spec["task_name"], "metric": "bits_per_byte,none", "weight": -1.0}
    config = EvolMergeConfiguration(
        genome=definition, tasks=[task], shuffle=False, apply_chat_template=False
    )
    kind = actors.InMemoryMergeEvaluator.__ray_metadata__.modified_class
    evaluator = kind(
        config,
        genome,
        MergeOptions(lazy_unpickle=False, quiet=True),
        task_manager=TaskManager(include_path=spec["task"], include_defaults=False),
        batch_size=8 if spec["best"] else None,
    )
    # It names a task by its place below its own folder, and fails for any other.
    lm_eval.tasks.__file__ = "/__init__.py"
    rows = []
    for number, weights in enumerate([spec["weights"][0], *spec["weights"]]):
        before, started = dict(spent.seconds), _cpu()
        genotype = torch.tensor(weights, dtype=torch.float64).view(1, -1, 1, 1)
        found = evaluator.evaluate(genotype)
        if spec["best"] and not number:
            evaluator.model.model.float()
        row = {kind: spent.seconds[kind] - before[kind] for kind in before}
        if number:  # The first one builds the model.
            rows.append({**row, "all": _cpu() - started, "bits_per_byte": -found["score"]})
    print(json.dumps(rows))


class BatchedHFLM(HFLM):
    """lm_eval's model as it would be if its options reached it."""

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, batch_size=8, softmax_dtype=torch.float32, **named)


def _best_case() -> None:
    lm_eval.models.huggingface.HFLM = BatchedHFLM
    lm_eval.evaluator.add_env_info = lambda results: None


def _cpu() -> float:
    """Return the CPU seconds of this process and of those that it waited for."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
