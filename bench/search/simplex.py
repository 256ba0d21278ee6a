"""Evaluations to the best proportions: `python -m bench.search.simplex STUDY.yaml`.

Searches the simplex of a trained pool (any study that was run; `demo/study.yaml` is one) by each
algorithm in this process, one merge and one evaluation a proposal, from nothing but the units'
scores. The target is the best objective that any of them found. Nothing is written to the
workspace.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ablate.engine import begin_conversation
from ablate.evaluate.scorer import Merge, Scorer, ScorerSettings
from ablate.here import domains_of
from ablate.models.checkpoint import load_flat
from ablate.search.candidates import base_candidates
from ablate.search.conversation import Pause
from ablate.search.journal import Journal, Scored
from ablate.search.questions import Question, Questions
from ablate.standing import Standing, standing_of
from ablate.study import load_study

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
        scorer, vectors, seed = _models(standing)
        found = {
            name: _values(standing, scorer, vectors, seed, name, trials)
            for name, trials in TRIALS.items()
        }
        best = min(min(values) for values in found.values())
        for share in WITHIN:
            counts = {name: _reached(values, best * (1 + share)) for name, values in found.items()}
            for name, count in counts.items():
                numbers.append(_number(objective, name, share, count, counts["cma-es"], best))
    return numbers


def _models(standing: Standing) -> tuple[Scorer, dict[Any, np.ndarray], np.ndarray]:
    root, pool, study = standing.workspace.root, standing.pool, standing.study
    settings = ScorerSettings(
        seed_folder=str(root / pool.seed.folder),
        trust_remote_code=False,
        length=study.evaluation_length,
        precision=study.evaluate.precision,
        batch_tokens=None,
        threads=1,
        gpus=0,
    )
    scorer = Scorer(settings, domains_of(standing.corpus, root))
    vectors = {
        member: load_flat(root / unit.folder, scorer.layout, digest=unit.digest)
        for member, unit in pool.by_member.items()
    }
    seed = load_flat(root / pool.seed.folder, scorer.layout, digest=pool.seed.digest)
    return scorer, vectors, seed


def _values(
    standing: Standing,
    scorer: Scorer,
    vectors: dict[Any, np.ndarray],
    seed: np.ndarray,
    algorithm: str,
    trials: int,
) -> list[float]:
    """Return the objectives of an algorithm's proposals, in order."""
    search = standing.study.search.model_copy(update={"algorithm": algorithm, "trials": trials})
    asked = Standing(
        **{**standing.__dict__, "study": standing.study.model_copy(update={"search": search})}
    )
    real = Journal(standing.workspace.journal)
    values: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "trials.jsonl")
        for candidate in base_candidates(standing.pool):
            journal.append(candidate, real.get(candidate.key))
        questions = Questions(
            pool=standing.pool,
            frame=standing.frame,
            merge=search.merge,
            journal=journal,
            base=base_candidates(standing.pool),
            begin=lambda: begin_conversation(asked, algorithm),
        )
        while not isinstance(question := questions.next(), Pause):
            scored = _answer(standing, scorer, vectors, seed, question)
            questions.answered(question, scored)
            value = standing.frame.value(scored)
            assert value is not None
            values.append(float(value))
    return values


def _answer(
    standing: Standing,
    scorer: Scorer,
    vectors: dict[Any, np.ndarray],
    seed: np.ndarray,
    question: Question,
) -> Scored:
    candidate, marks = question.candidate, standing.frame.domains
    weighted = [name for name, weight in standing.frame.weights.items() if weight]
    merge = Merge(
        method="linear",
        members=[vectors[member] for member, _ in candidate.coefficients],
        weights=[share for _, share in candidate.coefficients],
        identities=[standing.pool.by_member[m].fingerprint for m, _ in candidate.coefficients],
    )
    result = scorer.score(merge, weighted)
    slopes: dict[str, dict[str, float]] = {}
    if question.slopes:
        units = {standing.pool.by_member[m].fingerprint: v for m, v in vectors.items()}
        slopes = scorer.slopes(units, seed, weighted)
    return Scored(
        key=candidate.key,
        scores={marks[name]: score for name, score in result.scores.items()},
        slopes={marks[name]: found for name, found in slopes.items()},
    )


def _reached(values: list[float], target: float) -> int:
    """Return after how many values one is at the target; one more than all when none is."""
    return next((n for n, value in enumerate(values, 1) if value <= target), len(values) + 1)


def _number(
    objective: str, name: str, share: float, count: int, cma: int, best: float
) -> dict[str, Any]:
    ratio = cma / count
    aimed = name == "gradient" and share == 0.001
    return {
        "name": f"search/simplex/{name}/{share:.2%}",
        "value": float(count),
        "unit": "evaluations",
        "limit": AIM if aimed else None,
        "holds": ratio >= AIM if aimed else True,
        "detail": f"{objective}: {ratio:.1f} x fewer than CMA-ES; best {best:.5f}"
        + (f", over {TRIALS[name]}" if count > TRIALS[name] else ""),
    }


if __name__ == "__main__":
    from bench.__main__ import line

    for number in main(sys.argv[1]):
        print(line(number))
