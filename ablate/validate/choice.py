"""Which mixtures to train for real: the search's best, a control, and an even spread.

Agreement measured on the best mixtures alone says little of the rest, and a calibration must not
extrapolate: so the mixtures are spread over the sizes, and within a size over the predicted scores.
The control is drawn blindly: its regret is what no search at all would have given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt


def stratified(
    sizes: Sequence[int] | npt.NDArray[np.int64],
    predicted: npt.ArrayLike,
    keys: Sequence[str],
    count: int,
    *,
    must: Sequence[int] = (),
    allowed_sizes: Collection[int] | None = None,
    control: bool = True,
    rng_seed: int,
) -> list[int]:
    """Return up to `count` positions among m mixtures, in the order in which to train them.

    First `must`, whatever their size; then, with `control`, one drawn from all others by `rng_seed`; then
    always the size with the fewest mixtures so far (the smallest of equals), and of that size the
    best predicted, then the worst, then the one farthest in rank from those taken. `sizes` [m]
    are numbers of partitions, `predicted` [m] losses in nats (smaller is better), `keys` [m]
    distinct names that break ties: the order of the mixtures does not matter. All are returned
    where `count` reaches m; `allowed_sizes` limits all but `must`. Raises ValueError for arrays
    that do not fit together, positions outside them, equal keys, or losses not finite.
    """
    scores = _checked(sizes, predicted, keys, must)
    order = sorted(range(len(keys)), key=keys.__getitem__)
    pool = [i for i in order if allowed_sizes is None or sizes[i] in allowed_sizes]
    taken = list(dict.fromkeys(must))[: max(count, 0)]
    left = [i for i in pool if i not in taken]
    if control and left and len(taken) < count:
        taken.append(left[np.random.default_rng(rng_seed).integers(len(left))])
    ranked: dict[int, list[int]] = {}
    for i in sorted(pool, key=lambda i: (scores[i], keys[i])):
        ranked.setdefault(int(sizes[i]), []).append(i)
    while len(taken) < count and (one := _next(ranked, set(taken))) is not None:
        taken.append(one)
    return taken


def _next(ranked: dict[int, list[int]], taken: set[int]) -> int | None:
    """Return what to train next; None when all is taken. `ranked[size]` is best first."""
    counts = {size: len(taken.intersection(members)) for size, members in ranked.items()}
    unfilled = [size for size, members in ranked.items() if counts[size] < len(members)]
    if not unfilled:
        return None
    members = ranked[min(unfilled, key=lambda size: (counts[size], size))]
    for end in (members[0], members[-1]):
        if end not in taken:
            return end
    return members[_farthest(np.array([one in taken for one in members]))]


def _farthest(taken: npt.NDArray[np.bool_]) -> int:
    """Return the rank farthest from every taken one, the better of equals."""
    ranks = np.arange(len(taken))
    distance = np.abs(ranks[:, None] - ranks[taken][None, :]).min(axis=1)
    return int(np.argmax(distance))


def _checked(
    sizes: Sequence[int] | npt.NDArray[np.int64],
    predicted: npt.ArrayLike,
    keys: Sequence[str],
    must: Sequence[int],
) -> npt.NDArray[np.float64]:
    scores = np.asarray(predicted, dtype=float)
    if not len(sizes) == len(keys) or scores.shape != (len(keys),):
        raise ValueError(
            "sizes, predicted and keys must be of the same mixtures, got "
            f"{len(sizes)}, {scores.shape} and {len(keys)}; give one of each per mixture"
        )
    if not set(must) <= set(range(len(keys))):
        raise ValueError(f"must holds positions among {len(keys)} mixtures, got {list(must)}")
    if len(set(keys)) < len(keys) or not np.isfinite(scores).all():
        raise ValueError("keys must be distinct and predicted finite; leave the others out")
    return scores
