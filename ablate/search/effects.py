"""What each partition does to the objective, from the scored mixtures of the merged game.

    n partitions, m scored subsets    masks [m, n] bool, values [m] nats per token
    v(S)   objective of the merge of S; v(empty) is the seed model's objective
    w(s) = s! (n - s - 1)! / n!                      the share of orders in which S comes before i
    phi_i = sum over S without i of w(|S|) (v(S + i) - v(S))        (Shapley 1953)

Effects are changes of a loss: below zero, the partition helps. Each is a linear combination of
values, so its error from the finite evaluation text follows exactly from the groups of
`ablate.search.paired`. What was not scored adds the error of estimation. Intervals are of one
effect at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, factorial

import numpy as np
from scipy import linalg, stats

from ablate.errors import StudyError
from ablate.search.paired import PairedScores, contrasts

LARGEST_EXACT = 16
# Rows per coefficient from which the quadratic fit is trusted over the additive one.
ROWS_PER_COEFFICIENT = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Effects:
    """Effects [k] in nats per token with two-sided intervals [lower, upper] of the asked level.

    `stderr` joins the error of the evaluation text (when the groups were given) and that of
    estimation; `method` says how they were found. NaN where the scored subsets do not tell.
    """

    effect: np.ndarray
    stderr: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    method: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    """Linear map from values to coefficients [p, m], and each row's residual and leverage."""

    coefficients: np.ndarray
    residual: np.ndarray
    leverage: np.ndarray
    unseen: np.ndarray
    freedom: float
    pairs: bool
    method: str


def shapley(
    masks: np.ndarray,
    values: np.ndarray,
    scores: PairedScores | None = None,
    level: float = 0.95,
) -> Effects:
    """Return the Shapley value of each partition [n]: exact when every subset is scored.

    The values sum to v(all) - v(empty). Exact values cost 2^n * n operations, up to n = 16;
    otherwise they are estimated as `shapley_regression` says. `scores` are the same m subsets' of
    `paired_scores`; without them the interval holds the error of estimation only. Raises
    StudyError for arrays that do not fit, a subset given twice, or too few subsets.
    """
    masks, values = _checked(masks, values, scores)
    partitions = masks.shape[1]
    if partitions > LARGEST_EXACT or len(values) < 2**partitions:
        return shapley_regression(masks, values, scores, level)
    sizes = masks.sum(axis=1)
    orders = [factorial(s) * factorial(partitions - s - 1) for s in range(partitions)]
    share = np.array([*orders, 0]) / factorial(partitions)
    matrix = np.where(masks, share[sizes - 1][:, None], -share[sizes][:, None]).T
    return _effects(matrix, values, scores, level, "exact")


def interactions(
    masks: np.ndarray,
    values: np.ndarray,
    scores: PairedScores | None = None,
    index: str = "shapley",
    level: float = 0.95,
) -> Effects:
    """Return how far two partitions together do more than each alone, per pair [n (n - 1) / 2].

    Pairs in the order of `itertools.combinations(range(n), 2)`; below zero, the two help each
    other. `index` is "shapley" (Grabisch and Roubens 1999) or "banzhaf" (every set of others counts
    the same). Exact when every subset is scored (n <= 16); else the coefficients of the quadratic
    fit of `shapley_regression`, at which both indices agree. Raises StudyError as `shapley` does,
    and when the scored subsets do not determine every pair.
    """
    masks, values = _checked(masks, values, scores)
    if index not in ("shapley", "banzhaf"):
        raise StudyError(f"index must be shapley or banzhaf, got '{index}'; name one of them")
    partitions = masks.shape[1]
    pairs = list(combinations(range(partitions), 2))
    if partitions > LARGEST_EXACT or len(values) < 2**partitions:
        fit = _fit(masks, values)
        if not fit.pairs:
            raise StudyError(
                f"{len(pairs)} pair interactions need more scored subsets, got {len(values)}; "
                f"score about {int(ROWS_PER_COEFFICIENT * len(pairs)) + 2 * partitions}"
            )
        chosen = np.eye(len(fit.coefficients))[1 + partitions :]
        return _fitted(chosen, fit, values, scores, level)
    if partitions < 2:
        return _effects(np.zeros((0, len(values))), values, scores, level, "exact")
    share = _pair_shares(partitions, index)
    rest = masks.sum(axis=1)
    rows = []
    for i, j in pairs:
        others = rest - masks[:, i].astype(int) - masks[:, j]
        rows.append(np.where(masks[:, i] == masks[:, j], 1.0, -1.0) * share[others])
    return _effects(np.array(rows), values, scores, level, "exact")


def _pair_shares(partitions: int, index: str) -> np.ndarray:
    sizes = range(partitions - 1)
    if index == "banzhaf":
        return np.full(partitions - 1, 0.5 ** (partitions - 2))
    orders = [factorial(s) * factorial(partitions - s - 2) for s in sizes]
    return np.array(orders) / factorial(partitions - 1)


def leave_one_out(
    masks: np.ndarray,
    values: np.ndarray,
    scores: PairedScores | None = None,
    reference: np.ndarray | None = None,
    level: float = 0.95,
) -> Effects:
    """Return v(reference) - v(reference without i) per partition [n]: below zero, i helps there.

    `reference` [n] is a scored subset; by default all partitions, or the best subset where that was
    not scored. NaN for partitions outside it and where the smaller subset was not scored. A best
    subset was chosen for being best, so its effects look better than they are. Raises StudyError as
    `shapley` does.
    """
    masks, values = _checked(masks, values, scores)
    rows = {mask.tobytes(): row for row, mask in enumerate(masks)}
    if reference is None:
        full = np.ones(masks.shape[1], dtype=bool)
        reference = full if full.tobytes() in rows else masks[int(np.argmin(values))]
    reference = np.asarray(reference, dtype=bool)
    if reference.tobytes() not in rows:
        raise StudyError("the reference of leave-one-out must be scored, got another; score it")
    matrix = np.full((masks.shape[1], len(values)), np.nan)
    for i in np.flatnonzero(reference):
        without = reference.copy()
        without[i] = False
        if without.tobytes() in rows:
            matrix[i] = 0.0
            matrix[i, rows[reference.tobytes()]] = 1.0
            matrix[i, rows[without.tobytes()]] = -1.0
    return _effects(matrix, values, scores, level, "leave-one-out")


def shapley_regression(
    masks: np.ndarray,
    values: np.ndarray,
    scores: PairedScores | None = None,
    level: float = 0.95,
) -> Effects:
    """Return Shapley values [n] estimated from the subsets that were scored.

    Weighted least squares with the Shapley kernel, (n - 1) / (s (n - s)) for all subsets of size s
    together, through v(empty) and v(all) exactly where these are scored (Lundberg and Lee 2017,
    KernelSHAP; Covert and Lee 2021). With enough rows the fit has pair interactions, whose halves
    go to both partitions; under this kernel the best quadratic has the game's own Shapley values,
    as the best additive function has, and leaves smaller residuals.

    The error of estimation is that of a random choice of subsets within each size, by residuals
    corrected for leverage (HC3, MacKinnon and White 1985), nothing where all subsets of a size are
    scored. Subsets that a search chose for being good are no such choice, and sizes never scored
    are filled in by the fit's form alone (`method` names them): both go beyond the interval. Raises
    StudyError as `shapley` does, when v(empty) is missing, and when not even an additive fit is
    determined.
    """
    masks, values = _checked(masks, values, scores)
    partitions = masks.shape[1]
    fit = _fit(masks, values)
    chosen = np.eye(partitions, len(fit.coefficients), k=1)
    if fit.pairs:
        for column, (i, j) in enumerate(combinations(range(partitions), 2), 1 + partitions):
            chosen[[i, j], column] = 0.5
    return _fitted(chosen, fit, values, scores, level)


def _fit(masks: np.ndarray, values: np.ndarray) -> _Fit:
    """Return the quadratic fit where the rows determine it, else the additive one."""
    if masks.any(axis=1).all():
        raise StudyError(
            "the empty subset must be scored, got none; give the seed model's objective as its value"
        )
    pairs = list(combinations(range(masks.shape[1]), 2))
    additive = np.column_stack([np.ones(len(masks)), masks]).astype(float)
    products = np.array([masks[:, i] & masks[:, j] for i, j in pairs], dtype=float)
    for design, quadratic in ((np.vstack([additive.T, products]).T, True), (additive, False)):
        if quadratic and (not pairs or len(masks) < ROWS_PER_COEFFICIENT * design.shape[1]):
            continue
        if np.linalg.matrix_rank(design) == design.shape[1]:
            return _constrained(design, masks, values, quadratic)
    raise StudyError(
        f"effects of {masks.shape[1]} partitions need scored subsets that tell them apart, got "
        f"{len(masks)} subset(s); score more, such as every partition alone and the seed"
    )


def _constrained(design: np.ndarray, masks: np.ndarray, values: np.ndarray, pairs: bool) -> _Fit:
    """Return kernel-weighted least squares that passes through v(empty) and v(all) exactly."""
    rows, columns = design.shape
    weight, unseen = _kernel(masks)
    ends = np.isinf(weight)
    inner = ~ends
    root = np.sqrt(weight[inner])[:, None]
    fixed = np.zeros((columns, rows))
    free = np.eye(columns)
    if ends.any():
        fixed[:, ends] = np.linalg.pinv(design[ends])
        free = linalg.null_space(design[ends])
    inside = design[inner] @ free
    solve = np.linalg.pinv(root * inside) * root.T
    response = -(solve @ design[inner]) @ fixed
    response[:, inner] += solve
    coefficients = fixed + free @ response
    leverage = np.zeros(rows)
    leverage[inner] = np.einsum("ij,ji->i", inside, solve)
    return _Fit(
        coefficients=coefficients,
        residual=values - design @ (coefficients @ values),
        leverage=leverage,
        unseen=np.where(ends, 0.0, unseen),
        freedom=float(inner.sum() - free.shape[1]),
        pairs=pairs,
        method=_method(masks, pairs),
    )


def _method(masks: np.ndarray, pairs: bool) -> str:
    name = "quadratic regression" if pairs else "additive regression"
    missing = sorted(set(range(masks.shape[1] + 1)) - set(masks.sum(axis=1).tolist()))
    return f"{name}; extrapolated to sizes {', '.join(map(str, missing))}" if missing else name


def _kernel(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each subset's weight (infinite for the empty and the full one), and the factor on its
    squared residual: none where all subsets of its size are scored."""
    partitions = masks.shape[1]
    sizes = masks.sum(axis=1)
    scored = np.bincount(sizes, minlength=partitions + 1)
    weight, unseen = np.full(len(masks), np.inf), np.zeros(len(masks))
    for s in range(1, partitions):
        mine = sizes == s
        weight[mine] = (partitions - 1) / (s * (partitions - s)) / max(scored[s], 1)
        # The variance of a mean of k out of K: (1 - k / K) k / (k - 1), with k = 1 taken as 2.
        unseen[mine] = (1 - scored[s] / comb(partitions, s)) * scored[s] / max(scored[s] - 1, 0.5)
    return weight, unseen


def _fitted(
    chosen: np.ndarray,
    fit: _Fit,
    values: np.ndarray,
    scores: PairedScores | None,
    level: float,
) -> Effects:
    """Return combinations `chosen` [k, p] of the fit's coefficients as effects."""
    matrix = chosen @ fit.coefficients
    # A residual of leverage one is zero by itself: nothing is learnt from it.
    spread = fit.residual / np.maximum(1 - fit.leverage, 1e-6)
    share = matrix**2 * fit.unseen
    unknown = share.any(axis=1) & (fit.freedom <= 0)
    variance = np.where(unknown, np.inf, share @ spread**2)
    # Satterthwaite: a few heavy rows (the small and the large subsets) carry most of the variance.
    squares = (share**2).sum(axis=1)
    few = np.divide(share.sum(axis=1) ** 2, squares, out=np.ones(len(share)), where=squares > 0)
    freedom = np.clip(few, 1.0, max(fit.freedom, 1.0))
    return _effects(matrix, values, scores, level, fit.method, (variance, freedom))


def _effects(
    matrix: np.ndarray,
    values: np.ndarray,
    scores: PairedScores | None,
    level: float,
    method: str,
    estimation: tuple[np.ndarray, np.ndarray] | None = None,
) -> Effects:
    """Return `matrix` [k, m] times the values, with both errors and joint degrees of freedom."""
    variance, freedom = np.zeros(len(matrix)), np.full(len(matrix), np.inf)
    if scores is not None and len(matrix):
        found = contrasts(scores, matrix)
        variance, freedom = found.stderr**2, found.freedom
    if estimation is not None:
        added, its_freedom = estimation
        total = variance + added
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = variance**2 / freedom + added**2 / its_freedom
            freedom = np.where(spread > 0, total**2 / spread, np.inf)
        freedom = np.where(np.isinf(total), 1.0, freedom)
        variance = total
    return _interval(matrix @ values, np.sqrt(variance), freedom, level, method)


def _interval(
    effect: np.ndarray, stderr: np.ndarray, freedom: np.ndarray | float, level: float, method: str
) -> Effects:
    if not 0 < level < 1:
        raise StudyError(f"level must lie between 0 and 1, got {level}; use 0.95")
    half = stats.t.isf((1 - level) / 2, freedom) * stderr
    return Effects(
        effect=effect, stderr=stderr, lower=effect - half, upper=effect + half, method=method
    )


def _checked(
    masks: np.ndarray, values: np.ndarray, scores: PairedScores | None
) -> tuple[np.ndarray, np.ndarray]:
    masks = np.ascontiguousarray(masks, dtype=bool)
    values = np.asarray(values, dtype=float)
    if masks.ndim != 2 or not masks.shape[1] or values.shape != masks.shape[:1]:
        raise StudyError(
            f"masks must be [subsets, partitions] and values [subsets], got {masks.shape} and "
            f"{values.shape}; give one value per subset"
        )
    if scores is not None and scores.objective.shape != values.shape:
        raise StudyError(
            f"scores must be of the same {len(values)} subsets, got {len(scores.objective)}; "
            f"pass the rows of the masks"
        )
    if len({mask.tobytes() for mask in masks}) < len(masks):
        raise StudyError("every subset must be given once, got one twice; drop the repeated rows")
    return masks, values
