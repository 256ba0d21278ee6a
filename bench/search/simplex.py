"""Evaluations to the best proportions: `python -m bench.search.simplex STUDY.yaml`.

Searches the simplex of a trained pool (any study that was run; `demo/study.yaml` is one) by each
algorithm in this process, one merge and one evaluation a proposal, from nothing but the units'
scores. The target is the best objective that any of them found. Nothing is written to the
workspace.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.engine import begin_conversation
from ablate.here import answer_here
from ablate.on_ray import scorer_settings
from ablate.resources import Cluster
from ablate.search.candidates import base_candidates
from ablate.search.conversation import Pause
from ablate.search.journal import Journal
from ablate.search.questions import Questions
from ablate.standing import Standing, standing_of
from ablate.study import load_study
from bench._numbers import measured

TRIALS = {"gradient": 60, "surrogate": 60, "ensemble-first": 60, "cma-es": 200}
WITHIN = (0.0001, 0.001, 0.01)
AIM = 5.0
OBJECTIVES = ("{mean: domains}", "{mean: all}")


def main(study: str) -> list[dict[str, Any]]:
    """Return evaluations by objective, algorithm and distance to the best, and CMA-ES's ratio."""
    numbers = []
    for objective in OBJECTIVES:
        overrides = ["search.space={kind: simplex}", f"search.objective={objective}"]
        asked = load_study(study, overrides)
        standing = standing_of(asked, asked.open_workspace())
        found = {name: _values(standing, name, trials) for name, trials in TRIALS.items()}
        best = min(min(values) for values in found.values())
        for share in WITHIN:
            counts = {name: _reached(values, best * (1 + share)) for name, values in found.items()}
            for name, count in counts.items():
                numbers.append(_number(objective, name, share, count, counts["cma-es"], best))
    return numbers


def _values(standing: Standing, algorithm: str, trials: int) -> list[float]:
    """Return the objectives of an algorithm's proposals, in order."""
    search = standing.study.search.model_copy(update={"algorithm": algorithm, "trials": trials})
    asked = replace(standing, study=standing.study.model_copy(update={"search": search}))
    settings = scorer_settings(standing, Cluster())
    frame = standing.frame  # only what the objective asks for is scored
    frame = replace(frame, domains={name: frame.domains[name] for name in frame.weights})
    real = Journal(standing.workspace.journal)
    values: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "trials.jsonl")
        for candidate in base_candidates(standing.pool):
            journal.append(candidate, real.get(candidate.key))
        questions = Questions(
            pool=standing.pool,
            frame=frame,
            merge=search.merge,
            journal=journal,
            base=base_candidates(standing.pool),
            begin=lambda: begin_conversation(asked, algorithm),
        )
        while not isinstance(question := questions.next(), Pause):
            scored = answer_here(standing, question, settings)
            questions.answered(question, scored)
            value = frame.value(scored)
            assert value is not None
            values.append(float(value))
    return values


def _reached(values: list[float], target: float) -> int:
    """Return after how many values one is at the target; one more than all when none is."""
    return next((n for n, value in enumerate(values, 1) if value <= target), len(values) + 1)


def _number(
    objective: str, name: str, share: float, count: int, cma: int, best: float
) -> dict[str, Any]:
    ratio = cma / count
    aimed = name == "gradient" and share == 0.001
    return measured(
        f"search/simplex/{name}/{share:.2%}",
        count,
        "evaluations",
        AIM if aimed else None,
        ratio >= AIM if aimed else True,
        f"{objective}: {ratio:.1f} x fewer than CMA-ES; best {best:.5f}"
        + (f", over {TRIALS[name]}" if count > TRIALS[name] else ""),
    )


if __name__ == "__main__":
    from bench.__main__ import line

    for number in main(sys.argv[1]):
        print(line(number))
