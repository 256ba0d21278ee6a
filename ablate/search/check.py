"""Refuse a search that could not start, before anything is trained."""

from __future__ import annotations

from ablate.errors import StudyError
from ablate.merge import check_options
from ablate.plugins import resolve
from ablate.search.algorithms import ALGORITHMS, SEVERAL_GOALS, SIMPLEX_ONLY, SUBSETS_ONLY
from ablate.search.candidates import ENSEMBLE, merge_label
from ablate.study import MergeMethod, SearchSettings, Study


def check_search(study: Study) -> None:
    """Refuse a search that could not start, before anything is trained."""
    search = study.search
    name = search.algorithm
    if name != "auto":
        resolve(name, ALGORITHMS, "search.algorithm", others=("auto",))
    if search.predictor != "pairwise" and name not in ("auto", "surrogate"):
        raise StudyError(
            f"search.predictor must stand with search.algorithm: surrogate, got '{name}', which "
            "fits none; remove it"
        )
    _check_kind(search)
    _check_goals(search)
    for one in search.merge.methods:
        check_merge(one)
    _check_alternatives(search)
    _check_racing(search)
    if getattr(ALGORITHMS.get(name), "wants_gradient", False) and search.merge.method != "linear":
        raise StudyError(
            f"search.algorithm {name} must stand with search.merge.method: linear, got "
            f"'{search.merge.method}'; use surrogate there"
        )


def _check_kind(search: SearchSettings) -> None:
    """Refuse an algorithm whose mixtures are not those of the space."""
    kind = search.space.kind
    if search.algorithm in SUBSETS_ONLY and kind != "subsets":
        raise StudyError(
            f"search.algorithm {search.algorithm} must stand with search.space.kind: subsets, got "
            f"'{kind}'; use auto, gradient, surrogate, cma-es, gaussian-process, tpe, sobol or "
            "random there"
        )
    if search.algorithm in SIMPLEX_ONLY and kind != "simplex":
        raise StudyError(
            f"search.algorithm {search.algorithm} must stand with search.space.kind: simplex, got "
            f"'{kind}'; use surrogate there"
        )


def _check_goals(search: SearchSettings) -> None:
    """Refuse several goals where there are none, or where the best groups depend on the goal."""
    if search.algorithm not in SEVERAL_GOALS:
        return
    if len(search.objectives) < 2:
        raise StudyError(
            f"search.objectives must name two goals or more for {search.algorithm}, got "
            f"{len(search.objectives)}; add goals, or use another algorithm"
        )
    if search.space.groups:
        raise StudyError(
            f"search.space.groups must not stand with search.algorithm {search.algorithm}: the "
            "best groups for one goal are not those for another; leave groups out, or use auto"
        )


def _check_alternatives(search: SearchSettings) -> None:
    """Refuse alternatives where the first merge alone can answer, or that are no alternatives."""
    others = search.merge.alternatives
    labels = [merge_label(one) for one in search.merge.methods]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise StudyError(
            f"search.merge.alternatives must differ from each other and from search.merge, got "
            f"{twice} twice; remove one"
        )
    if ENSEMBLE in [one.method for one in search.merge.methods] and others:
        raise StudyError(
            "search.merge.alternatives must not stand with the ensemble, which is scored beside "
            "every merge anyway; remove it, or the alternatives"
        )
    if others and search.racing is not None:
        raise StudyError(
            "search.racing must not stand with search.merge.alternatives: the leader of a race has "
            "one merge; leave one of them out"
        )
    if others and getattr(ALGORITHMS.get(search.algorithm), "wants_gradient", False):
        raise StudyError(
            f"search.algorithm {search.algorithm} must not stand with search.merge.alternatives, "
            "which have no slope; use surrogate there"
        )


def _check_racing(search: SearchSettings) -> None:
    """Refuse a race where trials need all scores, or have nothing to save."""
    if search.racing is None:
        return
    if search.merge.method == ENSEMBLE:
        raise StudyError(
            "search.racing must not stand with search.merge.method: ensemble, which scores all "
            "mixtures at once; leave racing out"
        )
    if search.objectives or search.algorithm == "nsga2":
        raise StudyError(
            "search.racing must not stand with search.objectives: a mixture that loses on one may "
            "lead on another; leave one of them out"
        )
    if getattr(ALGORITHMS.get(search.algorithm), "wants_gradient", False):
        raise StudyError(
            f"search.racing must not stand with search.algorithm {search.algorithm}, which needs "
            "every gradient; use surrogate"
        )


def check_merge(merge: MergeMethod) -> None:
    """Refuse an unknown merge method, options that it lacks, and a scale that is not for it."""
    if merge.method != "linear" and merge.scale is not None:
        raise StudyError(
            f"search.merge.scale must stand with method: linear, got '{merge.method}'; set "
            "search.merge.options.scale"
        )
    if merge.method == ENSEMBLE:
        if merge.options:
            raise StudyError(
                f"search.merge.options must be empty for the ensemble, got {sorted(merge.options)}"
            )
        return
    check_options(merge.method, merge.options)
