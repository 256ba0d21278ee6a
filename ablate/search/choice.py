"""Which algorithm a search uses, and why, in one phrase."""

from __future__ import annotations

from ablate.search.candidates import ENSEMBLE
from ablate.study import Study


def large(count: int) -> str:
    """Return a count as text, in powers of ten where it is beyond reading."""
    if count < 10**12:
        return f"{count:,}"
    return f"about 10^{len(str(count)) - 1}"


def choose_algorithm(study: Study, mixtures: int | None) -> tuple[str, str]:
    """Return the algorithm and one phrase that says why (`_choose`), and whether by groups."""
    name, why = _choose(study, mixtures)
    if goes_by_groups(study, name):
        why += "; whole groups first, then inside the best ones"
    return name, why


def goes_by_groups(study: Study, algorithm: str) -> bool:
    """Return whether a search is hierarchical; scoring everything needs no groups."""
    return bool(study.search.space.groups) and algorithm != "exhaustive"


def _choose(study: Study, mixtures: int | None) -> tuple[str, str]:
    """Return the algorithm and one phrase that says why.

    `mixtures` is the size of the space, None for a continuum. `auto` takes everything where it fits
    into the trials, several goals to NSGA-II (but over groups), ensembles to `ensemble-first`,
    proportions to the gradient where the merge is linear, and the surrogate otherwise.
    """
    search = study.search
    trials, name = search.trials, search.algorithm
    some = "a continuum of" if mixtures is None else large(mixtures)
    if name != "auto":
        most = trials if mixtures is None else min(trials, mixtures)
        return name, f"up to {most:,} of {some} mixtures"
    if mixtures is not None and mixtures <= trials:
        return "exhaustive", f"all {mixtures:,} mixtures fit into {trials:,} trials"
    if len(search.objectives) > 1 and not search.space.groups:
        return "nsga2", f"{len(search.objectives)} objectives over {some} mixtures"
    if search.merge.method == ENSEMBLE:
        return "ensemble-first", "token probabilities rank mixtures before any is scored"
    plain = search.merge.method == "linear" and not search.merge.alternatives
    if mixtures is None and plain and search.racing is None:
        return "gradient", f"{some} mixtures; each trial also gives the slope of every weight"
    return "surrogate", f"{some} mixtures do not fit into {trials:,} trials"
