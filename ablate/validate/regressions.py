"""Linear regressions of trained losses on features, many row subsets at once.

    n mixtures      b subsets of m of them (`rows`)      k columns, centred and scaled per subset
    Z = U S V'      the columns [m, k];  y [m] the trained losses;  λ penalty, zero for least squares
    H = 11'/m + U diag(S² / (S² + mλ)) U'        e = y - H y        left-out residual e / (1 - H_ii)

The intercept is not penalised, so the left-out residual is that of the fit without the row, the
scale of the columns held (Allen 1974; Golub, Heath and Wahba 1979). Its square, averaged, chooses
the penalty and then the model: the fewest columns first among equals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

COVARIATES = ("size", "tokens")
TEXT = "text/"
"""Prefix of the tokens of one partition behind a mixture.

`COVARIATES` and these are known before anything is trained or merged; every other feature is a
proxy.
"""
PROXIES = ("merge", "ensemble")
WIDTHS = {"merge": 1.0, "ensemble": 1.0, "size": 1.0, "tokens": 0.3}
MEMBERS, OTHER, WEAK = 0.3, 0.15, 0.1
"""Prior widths of slopes, on columns of unit spread, beside those of merge, ensemble and size.

Of the members' losses, any other proxy and single partitions' text: each adds a little to what
the two proxies say. With three ridges of equal widths to choose from, and affine maps of every
proxy, 18 mixtures chose too freely: of 42 that took no part, ranks within a size were 0.01 to 0.02
lower over twelve texts, on the worst text 0.56 for 0.74, and intervals held 92 % of them for 96 %
(`examples/agreement`). Half or twice these widths make little difference.
"""
SPARE_ROWS = 3
CHOICE = 2
"""Degrees of freedom charged for choosing the model by the very residuals that give its scale.

A simulated value: 0.95 intervals at n = 12 with five features held 0.91 with none, 0.93 with one
and 0.95 with two; at n = 30 0.94, 0.95 and 0.95. Choosing costs freedom (Ye 1998, JASA 93).
"""
PENALTIES = np.logspace(-4, 2, 19)
# Singular values below this share of sqrt(m) are columns that repeat others.
SMALLEST = 1e-9
# A row that decides a coefficient alone cannot be judged by the others.
LEAST_FREE = 1e-9
LEAST_FREEDOM = 1.0  # below, a fit passes through its rows, and their residuals say nothing


@dataclass(frozen=True, kw_only=True)
class Model:
    """A regression on `columns`, penalised when `ridge`: the narrower a slope's prior, the more."""

    name: str
    columns: tuple[str, ...]
    ridge: bool = False

    @property
    def text(self) -> npt.NDArray[np.bool_]:
        """Return which columns are of text [k]."""
        return np.array([name.startswith(TEXT) for name in self.columns], dtype=bool)

    @property
    def widths(self) -> Array:
        """Return the prior widths of the slopes [k], on columns of unit spread."""
        return np.array([_width(name) if self.ridge else 1.0 for name in self.columns])

    @property
    def parameters(self) -> int:
        """Return how many coefficients it has, the intercept included; a ridge's count as one."""
        return 2 if self.ridge else 1 + len(self.columns)


def _width(name: str) -> float:
    if name.startswith(TEXT):
        return WEAK
    return WIDTHS.get(name, MEMBERS if name.startswith("members_") else OTHER)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fits:
    """One model fitted to b subsets of m rows, with the best penalty of each.

    `centre`, `width`, `slope` [b, k] and `intercept` [b] predict. The mixtures vary along r
    `directions` [b, r, k], orthonormal, in which the slope has `variances` [b, r] over the noise's
    (0 where they do not); in all others it has its `prior` [b], 0 without a penalty. `left_out` [b,
    m] are left-out residuals in nats; `standard` [b, m] are the same times sqrt(1 - leverage), of
    the noise's variance once the choice is charged; `freedom` [b] is m minus the trace of H and
    that charge. `unseen` [b] is the variance, in units of the noise's, that a token of a partition
    adds when none of the m mixtures has it; 0 for models without text.
    """

    centre: Array
    width: Array
    slope: Array
    intercept: Array
    directions: Array
    variances: Array
    prior: Array
    left_out: Array
    standard: Array
    freedom: Array
    unseen: Array

    @property
    def error(self) -> Array:
        """Return the mean squared left-out residual [b]; infinite where a row cannot be judged."""
        found: Array = np.mean(self.left_out**2, axis=1)
        return found

    def at(self, columns: Array) -> tuple[Array, Array]:
        """Return mean [b] and leverage [b] at one row of columns [b, k] for each subset."""
        z = (columns - self.centre) / self.width
        mean = self.intercept + np.einsum("bk,bk->b", z, self.slope)
        along = np.einsum("brk,bk->br", self.directions, z)
        beyond = np.where(self.variances > 0, self.variances - self.prior[:, None], 0.0)
        leverage = np.sum(beyond * along**2, axis=1) + self.prior * np.sum(z**2, axis=1)
        return mean, 1 / self.left_out.shape[1] + leverage


def candidates(features: Mapping[str, Array], rows: int) -> list[Model]:
    """Return the models that `rows` mixtures can carry, three rows more than parameters at least.

    The mean; affine in merge and in ensemble, each with and without size; ridge on all features.
    Features that do not vary are left out.
    """
    varying = sorted(name for name, values in features.items() if np.ptp(values) > 0)
    models = [Model(name=name, columns=(name,)) for name in PROXIES if name in varying]
    if "size" in varying:
        models += [Model(name=f"{one.name} + size", columns=(one.name, "size")) for one in models]
    if len(varying) > 1:
        models.append(Model(name="ridge", columns=tuple(varying), ridge=True))
    carried = [model for model in models if rows >= model.parameters + SPARE_ROWS]
    return [Model(name="mean", columns=()), *carried]


def all_but_one(count: int) -> Rows:
    """Return the subsets [count, count - 1] that leave out each row in turn."""
    return np.nonzero(~np.eye(count, dtype=bool))[1].reshape(count, count - 1)


def stacked(features: Mapping[str, Array], names: Iterable[str], count: int) -> Array:
    """Return the named features as columns [count, k]."""
    columns = [np.asarray(features[name], dtype=float) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def fit_rows(
    model: Model, columns: Array, trained: Array, rows: Rows, charge: int = CHOICE
) -> Fits:
    """Return the model fitted to each of `rows` [b, m] of columns [n, k] and trained losses [n].

    `charge` degrees of freedom are taken off for the choice among models.
    """
    x, y, count = columns[rows], trained[rows], rows.shape[1]
    centre, width, z = _standardised(x, model)
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    intercept = y.mean(axis=1)
    along = np.einsum("bmk,bm->bk", u, y - intercept[:, None])
    penalties = PENALTIES if model.ridge else np.zeros(1)
    inverted = _inverted(s, penalties, count)
    kept = inverted * (s**2)[:, None]
    residual = (y - intercept[:, None])[:, None] - (kept * along[:, None]) @ u.transpose(0, 2, 1)
    free = 1 - 1 / count - kept @ (u**2).transpose(0, 2, 1)
    freedom = count - charge - 1 - kept.sum(axis=2)
    judged = (free > LEAST_FREE) & (freedom > LEAST_FREEDOM)[..., None]
    left_out = np.divide(residual, free, out=np.full(free.shape, np.inf), where=judged)
    best = np.argmin(np.mean(left_out**2, axis=2), axis=1)
    each = np.arange(len(rows))
    inverted, free, left_out = inverted[each, best], free[each, best], left_out[each, best]
    prior = 1 / (count * penalties[best]) if model.ridge else np.zeros(len(rows))
    return Fits(
        centre=centre,
        width=width,
        slope=np.einsum("bik,bi->bk", vt, inverted * s * along),
        intercept=intercept,
        directions=vt,
        variances=inverted,
        prior=prior,
        left_out=left_out,
        standard=left_out * np.sqrt(np.maximum(free, LEAST_FREE) * count / (count - charge)),
        freedom=freedom[each, best],
        unseen=prior / width[:, model.text][:, 0] ** 2 if model.text.any() else 0 * prior,
    )


def _standardised(x: Array, model: Model) -> tuple[Array, Array, Array]:
    """Return centre [b, k], width [b, k] and columns [b, m, k]; zero where one does not vary.

    The width is the spread over the prior's. Columns of text share one spread, so that a partition
    is not made large by being rare.
    """
    centre = x.mean(axis=1)
    flat = np.ptp(x, axis=1) == 0
    spread = np.where(flat, 0.0, x.std(axis=1))
    of_text = model.text
    width = np.where(flat, 1.0, spread)
    if of_text.any():
        shared = np.sqrt(np.mean(spread[:, of_text] ** 2, axis=1))
        width[:, of_text] = np.where(shared > 0, shared, 1.0)[:, None]
    width = width / model.widths
    z = np.where(flat[:, None], 0.0, (x - centre[:, None]) / width[:, None])
    return centre, width, z


def _inverted(s: Array, penalties: Array, rows: int) -> Array:
    """Return 1 / (s² + mλ) [b, g, k] for singular values s [b, k]; zero for repeated columns."""
    squares = (s**2)[:, None] + rows * penalties[None, :, None]
    kept = np.broadcast_to((s > SMALLEST * np.sqrt(rows))[:, None], squares.shape)
    return np.divide(1.0, squares, out=np.zeros(squares.shape), where=kept)
