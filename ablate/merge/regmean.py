"""RegMean: linear layers whose outputs are nearest to the members' on the members' own inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ablate.errors import StudyError
from ablate.merge.checks import require_deltas, require_each, require_shares
from ablate.merge.linear import linear
from ablate.merge.slices import entry_bounds, one_thread_each
from ablate.merge.statistics.gram_matrices import Grams
from ablate.models.layout import Entry, Layout


@dataclass(frozen=True, kw_only=True)
class _Term:
    """One member with weight > 0. `products` is `gram_products`, or None."""

    member: torch.Tensor
    weight: float
    grams: Grams
    products: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class _Damping:
    """How much of a Gram matrix is kept: see `regmean`."""

    alpha: float
    ridge: float


def regmean(
    out: torch.Tensor,
    members: Sequence[torch.Tensor],
    weights: Sequence[float],
    *,
    seed: torch.Tensor,
    layout: Layout,
    statistics: Sequence[Grams],
    alpha: float = 0.9,
    ridge: float = 1e-6,
    prepared: Sequence[torch.Tensor] | None = None,
    threads: int = 1,
) -> None:
    """Write the RegMean merge into `out`: per linear layer, with w = weights,

        W = (sum_k w_k H_k)^-1 sum_k w_k H_k W_k
        H_k = alpha G_k + (1 - alpha) diag(G_k) + ridge * mean(diag(G_k)) * I

    which minimises sum_k w_k ||X_k W - X_k W_k||^2 / tokens_k at alpha 1 and ridge 0. G_k, from
    `statistics[k]` (`gram_matrices`), is the mean of x x^T over the inputs of that layer in member
    k. (The factor n of the n * w_k of other codes cancels.) Entries without a Gram matrix in
    every member (embeddings, norms, biases, tied weights) are the weighted average.

    It is computed as theta_0 + (sum_k w_k H_k)^-1 sum_k w_k H_k (W_k - theta_0), which is the same
    and keeps the digits of what members share: products and solves in float32, sums of Gram
    matrices and their Cholesky factors in float64, one per group of layers that share an input. `prepared` holds `gram_products` of each member
    (one more vector per member, in exchange for 2 n d_in flops per parameter of each merge).

    Weights must be >= 0; one member of weight > 0 is copied bit for bit; equal Gram matrices give
    the weighted average. Extra memory, per thread: the Gram sum and three times the largest layer.
    The bits do not depend on threads: matrix products run on one thread each, layers in parallel.

    Helps most of the closed-form merges when members were trained on different text: it undoes
    interference that the average suffers (GPT-2 on seven tasks: average 56.1, RegMean 68.8, fusion
    bench). It costs d_in flops per parameter and as much as training's forward pass for its
    statistics. Low alpha where few tokens stand behind a large Gram matrix.

    Shapes and dtypes of `out` and members as in `linear`. Raises ValueError when they do not fit,
    StudyError when a sum of Gram matrices is singular. Source: Jin et al., arXiv 2212.09849,
    equations 2 and 3.
    """
    require_deltas(out, members, weights, seed, layout)
    require_shares(weights)
    require_each("statistics", statistics, members)
    require_each("prepared", prepared, members)
    terms = [
        _Term(
            member=member,
            weight=float(weight),
            grams=statistics[place],
            products=None if prepared is None else prepared[place],
        )
        for place, (member, weight) in enumerate(zip(members, weights, strict=True))
        if weight
    ]
    if len(terms) == 1:
        linear(out, [terms[0].member], [1.0], threads=threads)
        return
    damping = _Damping(alpha=alpha, ridge=ridge)
    groups = _groups(layout, terms)
    _average_others(out, layout, terms, {entry.name for group in groups for entry in group})

    def work(group: Sequence[Entry]) -> None:
        with torch.inference_mode():
            factor = _factor(group[0].name, terms, damping, out.device)
            for entry in group:
                part = slice(entry.offset, entry.offset + entry.numel)
                first = entry.name in terms[0].grams.input_first
                total = _sum_products(entry, terms, seed, damping, out.device)
                solved = torch.cholesky_solve(total if first else total.T, factor)
                delta = (solved if first else solved.T).reshape(-1)
                out[part] = delta.add_(seed[part].to(out.device))

    _each(work, groups, threads)


def gram_products(
    member: torch.Tensor,
    *,
    seed: torch.Tensor,
    layout: Layout,
    statistics: Grams,
    alpha: float,
    ridge: float,
) -> torch.Tensor:
    """Return H (W - theta_0) of each linear layer of one member, as float32 [layout.numel].

    H as in `regmean`; entries without a Gram matrix are zero.
    """
    products = torch.zeros(layout.numel, dtype=torch.float32)
    damping = _Damping(alpha=alpha, ridge=ridge)
    with torch.inference_mode():
        for entry in layout.entries:
            if entry.name in statistics.matrices:
                part = slice(entry.offset, entry.offset + entry.numel)
                delta = (member[part].cpu() - seed[part].cpu()).view(entry.shape)
                products[part] = _product(entry.name, delta, statistics, damping).reshape(-1)
    return products


def _groups(layout: Layout, terms: Sequence[_Term]) -> list[list[Entry]]:
    """Return the entries with Gram matrices, those that share them in every member together."""
    groups: dict[tuple[int, ...], list[Entry]] = {}
    for entry in layout.entries:
        if all(entry.name in term.grams.matrices for term in terms):
            key = tuple(term.grams.matrices[entry.name].data_ptr() for term in terms)
            groups.setdefault(key, []).append(entry)
    return list(groups.values())


def _average_others(
    out: torch.Tensor, layout: Layout, terms: Sequence[_Term], solved: set[str]
) -> None:
    """Write the weighted average of every entry that is not solved for, padding included."""
    weights = [term.weight for term in terms]
    total = sum(weights)
    shares = [weight / total for weight in weights] if abs(total - 1) > 1e-9 else weights
    for entry, (start, stop) in zip(layout.entries, entry_bounds(layout), strict=True):
        first = entry.offset + entry.numel if entry.name in solved else start
        if first < stop:
            linear(out[first:stop], [term.member[first:stop] for term in terms], shares)


def _damped_diagonal(gram: torch.Tensor, damping: _Damping) -> torch.Tensor:
    """Return what stands on H's diagonal beside alpha G, float32 [d_in]."""
    diagonal = gram.diagonal()
    mean = float(diagonal.mean())
    return (1 - damping.alpha) * diagonal + damping.ridge * (mean if mean > 0 else 1.0)


def _product(name: str, delta: torch.Tensor, grams: Grams, damping: _Damping) -> torch.Tensor:
    """Return H delta in the shape the weight is stored in."""
    gram = grams.matrices[name].to(delta.device)
    diagonal = _damped_diagonal(gram, damping)
    if name in grams.input_first:
        return torch.mm(gram, delta).mul_(damping.alpha).addcmul_(delta, diagonal[:, None])
    return torch.mm(delta, gram).mul_(damping.alpha).addcmul_(delta, diagonal)


def _sum_products(
    entry: Entry,
    terms: Sequence[_Term],
    seed: torch.Tensor,
    damping: _Damping,
    device: torch.device,
) -> torch.Tensor:
    part = slice(entry.offset, entry.offset + entry.numel)
    total = torch.zeros(entry.shape, dtype=torch.float32, device=device)
    start = seed[part].to(device)
    for term in terms:
        if term.products is not None:
            product = term.products[part].to(device).view(entry.shape)
        else:
            delta = (term.member[part].to(device) - start).view(entry.shape)
            product = _product(entry.name, delta, term.grams, damping)
        total.add_(product, alpha=term.weight)
    return total


def _factor(
    name: str, terms: Sequence[_Term], damping: _Damping, device: torch.device
) -> torch.Tensor:
    """Return the lower Cholesky factor of sum_k w_k H_k, float32 [d_in, d_in].

    It is found in float64, where rounding makes no positive sum indefinite; solving with it in
    float32 loses no more than the float32 products on the other side have lost.
    """
    side = terms[0].grams.matrices[name].shape[0]
    total = torch.zeros((side, side), dtype=torch.float64, device=device)
    for term in terms:
        gram = term.grams.matrices[name].to(device)
        total.add_(gram, alpha=term.weight * damping.alpha)
        total.diagonal().add_(_damped_diagonal(gram, damping), alpha=term.weight)
    factor: torch.Tensor
    factor, failed = torch.linalg.cholesky_ex(total)
    if int(failed):
        raise StudyError(
            f"RegMean's sum of Gram matrices must be positive definite for '{name}', got a "
            f"singular one at alpha {damping.alpha:g} and ridge {damping.ridge:g}; lower alpha, "
            "raise ridge, or gather statistics on more tokens"
        )
    return factor.float()


def _each(
    work: Callable[[Sequence[Entry]], None], groups: Sequence[Sequence[Entry]], threads: int
) -> None:
    with one_thread_each():
        if threads == 1:
            for group in groups:
                work(group)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, groups))
