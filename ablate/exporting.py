"""Name a mixture and write it: what `score` and `export` have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ablate.corpus import PartitionInfo
from ablate.errors import StudyError
from ablate.evaluate.scorer import merge_inputs
from ablate.export import CHECKPOINT, MERGES, Answer, Member, write_export
from ablate.here import read_merge
from ablate.merge import merge_method, run_method
from ablate.mixture import Mixture
from ablate.mixture_text import parse_mixture
from ablate.models.layout import Layout
from ablate.search.candidates import ENSEMBLE, Candidate, mixture_candidate
from ablate.search.journal import Journal
from ablate.settings import parse_number
from ablate.standing import Standing, current_standing
from ablate.study import Source, Study

RANK = re.compile(r"best(:(?P<rank>[-+0-9._]*))?")


def named_mixture(study: Study, name: str) -> Mixture:
    """Return the mixture that `name` means: a rank (best, best:3), members, or a weights file.

    Raises StudyError when it is none of them.
    """
    candidate = _candidate(current_standing(study, study.open_workspace()), name)
    assert candidate.mixture is not None
    return candidate.mixture


def export_mixture(
    study: Study,
    name: str,
    to: Path,
    kind: str,
    *,
    tokens: str | None = None,
    dtype: str = "float32",
) -> Path:
    """Write a mixture in one of `ablate.export`'s formats and return where it was written.

    `tokens` is the budget of the training to come, e.g. "300e9".
    """
    standing = current_standing(study, study.open_workspace())
    candidate = _candidate(standing, name)
    unmerged = candidate.method == ENSEMBLE and kind in (CHECKPOINT, "mergekit")
    if unmerged or (candidate.method not in MERGES and kind == "mergekit"):
        what = "no model at all" if unmerged else "not one of mergekit's"
        needed = "parameters" if kind == CHECKPOINT else f"parameters by {', '.join(MERGES)}"
        raise StudyError(
            f"a mixture must be merged in its {needed} to be exported as {kind}, got "
            f"'{candidate.merge}', which is {what}; set search.merge.method=linear, or export its "
            f"weights{'' if unmerged else ' or a checkpoint'}"
        )
    make = None
    if candidate.method != "linear":
        make = partial(_merged, standing, candidate)
    return write_export(_answer(standing, candidate, tokens), kind, to, dtype=dtype, make=make)


def _merged(standing: Standing, candidate: Candidate, layout: Layout) -> np.ndarray:
    """Return what an evaluator scored: the candidate's merge, float32 [layout.numel]."""
    merge, out = read_merge(standing, candidate, layout), torch.empty(layout.numel)
    run_method(
        merge_method(merge.method),
        out,
        list(merge.weights),
        merge_inputs(merge, layout),
        options=merge.options,
    )
    return out.numpy()


def _candidate(standing: Standing, name: str) -> Candidate:
    """Return what `name` means as it was scored: a rank has its own merge, others the study's."""
    units = standing.pool.units_of()
    asked = RANK.fullmatch(name.strip())
    if asked and name.strip() not in units:
        rank = asked["rank"]
        if rank and (not rank.isdecimal() or len(rank) > 9):
            raise StudyError(
                f"a rank must be a whole number from 1 on, got '{name.strip()}'; best is best:1"
            )
        board = standing.leaderboard(Journal(standing.workspace.journal), ensembles=False)
        return (board.ranked(int(rank)) if rank else board.best).candidate
    merge = standing.study.search.merge
    mixture = parse_mixture(name, known=list(units), units=units, weighting=merge.weighting)
    return mixture_candidate(standing.pool, mixture, merge)


def _answer(standing: Standing, candidate: Candidate, tokens: str | None) -> Answer:
    study, root, pool = standing.study, standing.workspace.root, standing.pool
    mixture = candidate.mixture
    assert mixture is not None
    partitions = standing.corpus.partitions
    sources = {
        name: _source_paths(partitions[name], study.corpus.sources)
        for name in mixture.partitions
        if name in partitions
    }
    return Answer(
        mixture=mixture,
        units=pool.units_of(),
        available_tokens={n: info.tokens for n, info in partitions.items()},
        sources=sources,
        members=tuple(
            Member(
                partition=member[0],
                index=member[1],
                folder=root / pool.by_member[member].folder,
                coefficient=share,
                digest=pool.by_member[member].digest,
            )
            for member, share in candidate.coefficients
        ),
        seed_folder=root / pool.seed.folder,
        tokenizer_folder=standing.workspace.tokenizer,
        seed_coefficient=candidate.seed_coefficient,
        seed_digest=pool.seed.digest,
        trust_remote_code=study.model.trust_remote_code,
        method=candidate.method,
        options=candidate.options,
        target_tokens=None if tokens is None else _budget(tokens),
    )


def _source_paths(info: PartitionInfo, sources: Sequence[Source]) -> tuple[str, ...]:
    """Return the paths of a partition's sources, as the corpus knows them or by its name."""
    if info.sources:
        return tuple(sources[place].path for place in info.sources if place < len(sources))
    return tuple(source.path for source in sources if source.partition == info.name)


def _budget(text: str) -> int:
    value = parse_number(text)
    if not isinstance(value, int) or value <= 0:
        raise StudyError(f"--tokens must be a positive whole number such as 300e9, got '{text}'")
    return value
