"""Fisher and RegMean against plain float64 versions, and their own laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ablate.errors import StudyError
from ablate.merge.fisher import fisher
from ablate.merge.linear import linear
from ablate.merge.regmean import regmean
from ablate.merge.statistics import Grams
from ablate.models.layout import Entry, Layout
from tests.merge import reference
from tests.merge.models import FAMILIES, Pool, pool

WEIGHTS = [0.5, 0.3, 0.2]


def average(models: Pool) -> torch.Tensor:
    out = torch.empty_like(models.seed)
    linear(out, models.members, WEIGHTS)
    return out


def stored(vector: torch.Tensor, entry: Entry) -> torch.Tensor:
    return vector[entry.offset : entry.offset + entry.numel].view(entry.shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_fisher_equals_the_plain_version(family: str) -> None:
    models = pool(family)
    out = torch.empty_like(models.seed)
    floor = 1e-3
    fisher(out, models.members, WEIGHTS, statistics=models.fishers, floor=floor)
    members = np.stack([member.double().numpy() for member in models.members])
    information = np.stack([diagonal.double().numpy() for diagonal in models.fishers])
    added = floor * np.dot(WEIGHTS, information.mean(1))
    exact = reference.fisher(members, np.array(WEIGHTS), information + added)
    assert np.allclose(out.double().numpy(), exact, rtol=0, atol=2e-6)


def test_fisher_equals_the_papers_equation_where_there_is_information() -> None:
    generator = torch.Generator().manual_seed(0)
    members = [torch.randn(1000, generator=generator) for _ in range(3)]
    diagonals = [1e-9 * torch.rand(1000, generator=generator).add(0.01) for _ in range(3)]
    out = torch.empty(1000)
    fisher(out, members, WEIGHTS, statistics=diagonals)
    exact = reference.fisher(
        torch.stack(members).double().numpy(),
        np.array(WEIGHTS),
        torch.stack(diagonals).double().numpy(),
    )
    assert np.allclose(out.numpy(), exact, rtol=0, atol=2e-4)  # the floor moves it by 1e-4 at most


def test_fisher_with_equal_information_is_the_average() -> None:
    models = pool("llama")
    for diagonal in (models.fishers[0], torch.zeros_like(models.seed), torch.ones(1)):
        same = [diagonal.expand_as(models.seed)] * 3
        out = torch.empty_like(models.seed)
        fisher(out, models.members, WEIGHTS, statistics=same)
        assert torch.allclose(out, average(models), rtol=0, atol=1e-6)


def test_fisher_lies_between_the_members_and_follows_the_sure_one() -> None:
    models = pool("gpt2")
    out = torch.empty_like(models.seed)
    fisher(out, models.members, WEIGHTS, statistics=models.fishers)
    rows = torch.stack(models.members)
    assert bool((out <= rows.amax(0) + 1e-6).all()) and bool((out >= rows.amin(0) - 1e-6).all())
    sure = [1e6 * models.fishers[0].mean().expand_as(models.seed), *models.fishers[1:]]
    fisher(out, models.members, WEIGHTS, statistics=sure)
    assert torch.allclose(out, models.members[0], rtol=0, atol=1e-2)


def test_normalized_fisher_does_not_depend_on_a_members_scale() -> None:
    models = pool("gpt2")
    one, other = torch.empty_like(models.seed), torch.empty_like(models.seed)
    scaled = [models.fishers[0] * 1000, *models.fishers[1:]]
    fisher(one, models.members, WEIGHTS, statistics=models.fishers, normalize=True)
    fisher(other, models.members, WEIGHTS, statistics=scaled, normalize=True)
    assert torch.allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("alpha", "ridge"), [(0.9, 1e-6), (0.5, 1e-2), (1.0, 1e-3), (0.0, 1e-6)])
def test_regmean_equals_the_plain_version(family: str, alpha: float, ridge: float) -> None:
    models = pool(family)
    out = torch.empty_like(models.seed)
    regmean(
        out,
        models.members,
        WEIGHTS,
        seed=models.seed,
        layout=models.layout,
        statistics=models.grams,
        alpha=alpha,
        ridge=ridge,
    )
    plain = average(models)
    for entry in models.layout.entries:
        got = stored(out, entry)
        if entry.name not in models.grams[0].matrices:
            assert torch.allclose(got, stored(plain, entry), rtol=0, atol=1e-7)
            continue
        first = entry.name in models.grams[0].input_first
        tensors = [stored(member, entry).double() for member in models.members]
        exact = reference.regmean(
            np.stack([(t if first else t.T).numpy() for t in tensors]),
            np.array(WEIGHTS),
            np.stack([g.matrices[entry.name].double().numpy() for g in models.grams]),
            alpha,
            ridge,
        )
        got = got if first else got.T
        assert np.allclose(got.double().numpy(), exact, rtol=0, atol=6e-5), entry.name


@pytest.mark.parametrize("family", FAMILIES)
def test_regmean_with_equal_gram_matrices_is_the_average(family: str) -> None:
    models = pool(family)
    identity = Grams(
        matrices={n: torch.eye(len(g)) for n, g in models.grams[0].matrices.items()},
        input_first=models.grams[0].input_first,
    )
    for same in (identity, models.grams[0]):
        out = torch.empty_like(models.seed)
        regmean(
            out,
            models.members,
            WEIGHTS,
            seed=models.seed,
            layout=models.layout,
            statistics=[same] * 3,
        )
        assert torch.allclose(out, average(models), rtol=0, atol=3e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_regmean_matches_the_members_outputs_better_than_the_average(family: str) -> None:
    """Its own objective, sum_k w_k E ||x W - x W_k||^2, is least of all; so is each group's."""
    models = pool(family)
    out = torch.empty_like(models.seed)
    regmean(
        out,
        models.members,
        WEIGHTS,
        seed=models.seed,
        layout=models.layout,
        statistics=models.grams,
        alpha=1.0,
        ridge=1e-6,
    )
    fishers = torch.empty_like(models.seed)
    fisher(fishers, models.members, WEIGHTS, statistics=models.fishers)
    for entry in models.layout.entries:
        if entry.name in models.grams[0].matrices:
            best = mismatch(models, entry, out)
            assert best < 0.999 * mismatch(models, entry, average(models)), entry.name
            assert best < mismatch(models, entry, fishers), entry.name


def mismatch(models: Pool, entry: Entry, merge: torch.Tensor) -> float:
    total = 0.0
    for weight, member, grams in zip(WEIGHTS, models.members, models.grams, strict=True):
        delta = (stored(merge, entry) - stored(member, entry)).double()
        delta = delta if entry.name in grams.input_first else delta.T
        gram = grams.matrices[entry.name].double()
        total += weight * float((delta * (gram @ delta)).sum())
    return total


def test_regmean_refuses_what_cannot_be_solved() -> None:
    layout = Layout(entries=(Entry(name="w", shape=(4, 4), offset=0),), numel=16)
    members = [torch.ones(16), torch.zeros(16)]
    flat = Grams(matrices={"w": torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))})
    with pytest.raises(StudyError, match=r"positive definite for 'w'.*lower alpha"):
        regmean(
            torch.empty(16),
            members,
            [0.5, 0.5],
            seed=torch.zeros(16),
            layout=layout,
            statistics=[flat, flat],
        )


def test_regmean_averages_what_one_member_has_no_gram_matrix_of() -> None:
    models = pool("llama")
    entry = next(e for e in models.layout.entries if e.name in models.grams[0].matrices)
    rest = {n: g for n, g in models.grams[1].matrices.items() if n != entry.name}
    grams = [models.grams[0], replace(models.grams[1], matrices=rest), models.grams[2]]
    out = torch.empty_like(models.seed)
    regmean(out, models.members, WEIGHTS, seed=models.seed, layout=models.layout, statistics=grams)
    assert torch.allclose(stored(out, entry), stored(average(models), entry), rtol=0, atol=1e-7)
