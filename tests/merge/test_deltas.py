"""Task arithmetic, TIES and DARE against plain float64 versions, and their own laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ablate.merge.dare import dare, drop_masks
from ablate.merge.linear import linear
from ablate.merge.task_arithmetic import task_arithmetic
from ablate.merge.ties import ties, trim_thresholds
from ablate.models.layout import Entry, Layout
from tests.merge import reference
from tests.merge.models import FAMILIES, Pool, pool

WEIGHTS = [0.5, 0.3, 0.2]


def parts(models: Pool, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """Return (members [k, n], seed [n]) of one entry in float64."""
    place = slice(entry.offset, entry.offset + entry.numel)
    members = np.stack([member[place].double().numpy() for member in models.members])
    return members, models.seed[place].double().numpy()


def of_entry(out: torch.Tensor, entry: Entry) -> np.ndarray:
    return out[entry.offset : entry.offset + entry.numel].double().numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_task_arithmetic_equals_the_plain_version(family: str, scale: float) -> None:
    models = pool(family)
    out = torch.empty_like(models.seed)
    task_arithmetic(out, models.members, WEIGHTS, seed=models.seed, scale=scale)
    for entry in models.layout.entries:
        members, seed = parts(models, entry)
        exact = reference.task_arithmetic(members, np.array(WEIGHTS), seed, scale)
        assert np.allclose(of_entry(out, entry), exact, rtol=0, atol=2e-6)


def test_task_arithmetic_at_scale_one_is_the_linear_merge_bit_for_bit() -> None:
    models = pool("llama")
    out, average = torch.empty_like(models.seed), torch.empty_like(models.seed)
    task_arithmetic(out, models.members, WEIGHTS, seed=models.seed)
    linear(average, models.members, WEIGHTS)
    assert torch.equal(out, average)


def test_task_arithmetic_is_linear_in_its_scale() -> None:
    models = pool("llama")
    merges = []
    for scale in (0.0, 1.0, 2.5):
        out = torch.empty_like(models.seed)
        task_arithmetic(out, models.members, WEIGHTS, seed=models.seed, scale=scale)
        merges.append(out)
    assert torch.equal(merges[0], models.seed)
    expected = models.seed + 2.5 * (merges[1] - models.seed)
    assert torch.allclose(merges[2], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("density", "scale"), [(0.2, 1.0), (0.55, 0.7), (1.0, 1.0), (1e-6, 1.0)])
def test_ties_equals_the_plain_version(family: str, density: float, scale: float) -> None:
    models = pool(family)
    out = torch.empty_like(models.seed)
    ties(
        out,
        models.members,
        WEIGHTS,
        seed=models.seed,
        layout=models.layout,
        density=density,
        scale=scale,
    )
    for entry in models.layout.entries:
        members, seed = parts(models, entry)
        # Deltas as the program sees them: which one is at the border may hang on their rounding.
        rounded = (members.astype(np.float32) - seed.astype(np.float32)).astype(np.float64)
        exact = reference.ties(seed + rounded, np.array(WEIGHTS), seed, density, scale)
        got = of_entry(out, entry)
        # Where masses of both signs cancel to rounding, either sign may win.
        wrong = ~np.isclose(got, exact, rtol=0, atol=2e-6)
        assert wrong.mean() < 1e-4, entry.name


def test_ties_keeps_the_largest_of_each_tensor() -> None:
    models = pool("gpt2")
    thresholds = trim_thresholds(
        models.members[0], seed=models.seed, layout=models.layout, density=0.2
    )
    delta = (models.members[0] - models.seed).abs()
    for entry, threshold in zip(models.layout.entries, thresholds, strict=True):
        kept = delta[entry.offset : entry.offset + entry.numel] >= threshold
        assert int(kept.sum()) == max(int(0.2 * entry.numel), 1)


def test_ties_by_hand() -> None:
    layout = Layout(entries=(Entry(name="w", shape=(4,), offset=0),), numel=16)
    seed = torch.zeros(16)
    rows = [[4.0, 1.0, -3.0, 0.0], [-1.0, 1.0, 2.0, 0.0], [2.0, -5.0, 2.0, 0.0]]
    members = [torch.tensor(row + [0.0] * 12) for row in rows]
    out = torch.full((16,), torch.nan)
    ties(out, members, [0.5, 0.25, 0.25], seed=seed, layout=layout, density=1.0)
    # Masses: 2 - .25 + .5; .5 + .25 - 1.25; -1.5 + .5 + .5 (negative wins); nothing.
    expected = torch.tensor([(2.0 + 0.5) / 0.75, -5.0, -3.0, 0.0])
    assert torch.allclose(out[:4], expected)
    # Against the dilution of the average, a delta that one member alone has is kept whole.
    ties(out, members, [0.5, 0.25, 0.25], seed=seed, layout=layout, density=0.25)
    assert torch.allclose(out[:4], torch.tensor([4.0, -5.0, 2.0, 0.0]))


def masks(models: Pool, entry: Entry, density: float, rng_seed: int) -> np.ndarray:
    place = slice(entry.offset, entry.offset + entry.numel)
    rows = [
        np.unpackbits(
            drop_masks(layout=models.layout, identity=name, rng_seed=rng_seed, density=density)
        )[place]
        for name in ("a", "b", "c")
    ]
    return np.stack(rows).astype(np.float64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("elect", [False, True])
def test_dare_equals_the_plain_version(family: str, elect: bool) -> None:
    models = pool(family)
    out = torch.empty_like(models.seed)
    dare(
        out,
        models.members,
        WEIGHTS,
        seed=models.seed,
        layout=models.layout,
        identities=["a", "b", "c"],
        rng_seed=7,
        density=0.4,
        elect=elect,
    )
    for entry in models.layout.entries:
        members, seed = parts(models, entry)
        kept = masks(models, entry, 0.4, 7)
        exact = reference.dare(members, np.array(WEIGHTS), seed, kept, 0.4, elect)
        wrong = ~np.isclose(of_entry(out, entry), exact, rtol=0, atol=2e-6)
        assert wrong.mean() < 1e-4, entry.name


def test_dare_is_unbiased_over_seeds() -> None:
    layout = Layout(entries=(Entry(name="w", shape=(1000,), offset=0),), numel=1008)
    generator = torch.Generator().manual_seed(0)
    seed = torch.randn(1008, generator=generator)
    members = [seed + torch.randn(1008, generator=generator) for _ in range(3)]
    target = torch.empty_like(seed)
    task_arithmetic(target, members, WEIGHTS, seed=seed)
    repeats, density = 400, 0.3
    total = torch.zeros(1008, dtype=torch.float64)
    for rng_seed in range(repeats):
        out = torch.empty_like(seed)
        dare(out, members, WEIGHTS, seed=seed, layout=layout, density=density, rng_seed=rng_seed)
        total += out.double()
    deltas = torch.stack([w * (m - seed).double() for w, m in zip(WEIGHTS, members, strict=True)])
    spread = ((1 / density - 1) * (deltas**2).sum(0) / repeats).sqrt()
    scores = ((total / repeats - target.double()) / spread)[:1000]
    assert abs(float(scores.mean())) < 4 / 1000**0.5
    assert 0.9 < float(scores.std()) < 1.1


def test_a_density_just_below_one_keeps_all() -> None:
    layout = Layout(entries=(Entry(name="a", shape=(64,), offset=0),), numel=64)
    for density in (1 - 1e-11, float(np.nextafter(1.0, 0.0))):
        bits = drop_masks(layout=layout, identity="a", rng_seed=0, density=density)
        assert np.unpackbits(bits).all()


def test_a_mask_depends_on_seed_identity_and_tensor_and_on_nothing_else() -> None:
    models = pool("llama")
    first = drop_masks(layout=models.layout, identity="a", rng_seed=0, density=0.5)
    assert np.array_equal(
        first, drop_masks(layout=models.layout, identity="a", rng_seed=0, density=0.5)
    )
    for other in (("b", 0), ("a", 1)):
        drawn = drop_masks(layout=models.layout, identity=other[0], rng_seed=other[1], density=0.5)
        differ = np.unpackbits(first ^ drawn).sum() / models.layout.parameters
        assert 0.48 < differ < 0.52
    # The tensor's own mask is the same in a layout where it stands elsewhere.
    entry = models.layout.entries[5]
    moved = Layout(entries=(Entry(name=entry.name, shape=entry.shape, offset=0),), numel=1 << 15)
    alone = np.unpackbits(drop_masks(layout=moved, identity="a", rng_seed=0, density=0.5))
    place = slice(entry.offset, entry.offset + entry.numel)
    assert np.array_equal(alone[: entry.numel], np.unpackbits(first)[place])


def test_masks_are_the_same_everywhere() -> None:
    """Golden bits: scores of DARE merges in journals stay reproducible."""
    layout = Layout(entries=(Entry(name="w", shape=(64,), offset=0),), numel=64)
    mask = drop_masks(layout=layout, identity="unit", rng_seed=0, density=0.5)
    assert mask.tobytes().hex() == "df8708b4a6cefc18"


def test_a_members_mask_does_not_depend_on_who_else_is_there() -> None:
    models = pool("llama")
    pair = torch.empty_like(models.seed)
    dare(
        pair,
        models.members[:2],
        [0.0, 1.0],
        seed=models.seed,
        layout=models.layout,
        identities=["a", "b"],
    )
    alone = torch.empty_like(models.seed)
    dare(
        alone,
        models.members[1:2],
        [1.0],
        seed=models.seed,
        layout=models.layout,
        identities=["b"],
    )
    assert torch.equal(pair, alone)
