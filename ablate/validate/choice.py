"""Which mixtures to train for real: the search's best, a control, and an even spread.

Agreement measured on the best mixtures alone says little of the rest, and a calibration must not
extrapolate: so the mixtures are spread over the sizes, and within a size over the predicted scores.
A size tells nothing before it has three: so no more sizes are begun than can be given three.
The control is drawn blindly: its regret is what no search at all would have given.

The order of the sizes, and that within each, do not depend on what is taken: a choice that is
made again when any part of it is taken is the same choice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ablate.validate.measures import LEAST_TO_RANK


def stratified(
    sizes: Sequence[int] | npt.NDArray[np.int64],
    predicted: npt.ArrayLike,
    keys: Sequence[str],
    count: int,
    *,
    must: Sequence[int] = (),
    done: Sequence[int] = (),
    allowed_sizes: Collection[int] | None = None,
) -> list[int]:
    """Return up to `count` positions among m mixtures: `done`, then those to train, in their order.

    First `must`, whatever their size. Then sizes are opened, those that hold three mixtures first:
    those of `must`, then the smallest, the largest, the middle one and so on; as many as can be
    given three. Next is always the open size with the fewest (the smallest of equals), and of that
    size the best predicted, the worst, the middle one and so on. `sizes` [m] are numbers of
    partitions, `predicted` [m] losses in nats (smaller is better; only their order counts), `keys`
    [m] distinct names that break ties: the order of the mixtures does not matter. All are returned
    where `count` reaches m; `allowed_sizes` limits all but `must` and `done`. Raises ValueError for
    arrays that do not fit together, positions outside them, equal keys, or losses not finite.
    """
    scores = _checked(sizes, predicted, keys, [*done, *must])
    taken = list(dict.fromkeys([*done, *must]))[: max(count, 0)]
    ranked: dict[int, list[int]] = {}
    for i in sorted(range(len(keys)), key=lambda i: (scores[i], keys[i])):
        if allowed_sizes is None or sizes[i] in allowed_sizes:
            ranked.setdefault(int(sizes[i]), []).append(i)
    held = {size: len(of) for size, of in ranked.items()}
    order = _opened(held, {int(sizes[i]) for i in must})
    most = count + len(taken)  # no more than so many of one size are looked at
    queues = {size: [of[k] for k in spread(len(of), most)] for size, of in ranked.items()}
    while len(taken) < count:
        counts = {size: len(set(taken).intersection(ranked[size])) for size in order}
        size = _next(order, held, counts, count - len(taken))
        if size is None:
            break
        taken.append(next(i for i in queues[size] if i not in taken))
    return taken


def _opened(held: Mapping[int, int], first: Collection[int]) -> list[int]:
    """Return the sizes, `held[size]` their mixtures, in the order in which they are opened."""
    order: list[int] = []
    for least in range(LEAST_TO_RANK, 0, -1):
        alike = sorted(size for size in held if min(held[size], LEAST_TO_RANK) == least)
        evenly = [alike[place] for place in spread(len(alike), len(alike))]
        order += sorted(evenly, key=lambda size: size not in first)
    return order


def _next(
    order: Sequence[int], held: Mapping[int, int], counts: Mapping[int, int], left: int
) -> int | None:
    """Return the size of which to take one next, with `left` to come; None when all are taken.

    `counts[size]` are taken of `held[size]`.
    """
    lacking = np.cumsum([max(0, min(held[s], LEAST_TO_RANK) - counts[s]) for s in order])
    opened = order[: max(1, int(np.sum(lacking <= left)))]
    unfilled = [size for size in order if counts[size] < held[size]]
    among = [size for size in opened if size in unfilled] or unfilled[:1]
    return min(among, key=lambda size: (counts[size], size), default=None)


def drawn_blindly(keys: Sequence[str], rng_seed: int) -> int:
    """Return a position that the seed draws among keys, whatever their order and their scores."""
    drawn = int(np.random.default_rng(rng_seed).integers(len(keys)))
    return keys.index(sorted(keys)[drawn])


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of 0 to count - 1, each farthest from those before it, the ends first."""
    found = list(dict.fromkeys((0, count - 1)))[: min(count, most)]
    places = np.arange(count)
    distance = np.minimum(places, count - 1 - places)
    while len(found) < min(count, most):
        found.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.abs(places - found[-1]))
    return found


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
