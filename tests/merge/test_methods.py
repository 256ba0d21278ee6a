"""Laws that every merge method keeps, on small real models of several families."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ablate.merge import METHODS, MergeInputs, prepare_member, run_method
from ablate.merge import slices as slices_module
from ablate.merge.slices import entry_bounds
from tests.merge.models import FAMILIES, Pool, pool

WEIGHTS = [0.5, 0.3, 0.2]
# What gives back one member: nothing trimmed, nothing dropped.
WHOLE: dict[str, dict[str, Any]] = {"ties": {"density": 1.0}, "dare": {"density": 1.0}}
EXACT = ["linear", "task_arithmetic", "fisher", "regmean"]


def inputs_of(models: Pool, method: str) -> MergeInputs:
    kind = METHODS[method].statistics
    return MergeInputs(
        members=models.members,
        seed=models.seed,
        layout=models.layout,
        identities=[f"unit-{place}" for place in range(len(models.members))],
        statistics={"fisher": models.fishers, "regmean": models.grams, None: None}[kind],
    )


def merged(
    method: str,
    inputs: MergeInputs,
    weights: list[float],
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> torch.Tensor:
    out = torch.full((inputs.members[0].numel(),), torch.nan, dtype=dtype)
    run_method(METHODS[method], out, weights, inputs, options=options, threads=threads)
    return out


def picked(inputs: MergeInputs, places: list[int]) -> MergeInputs:
    def pick(items: Any) -> Any:
        return None if items is None else [items[place] for place in places]

    return replace(
        inputs,
        members=pick(inputs.members),
        identities=pick(inputs.identities),
        statistics=pick(inputs.statistics),
    )


def bits(vector: torch.Tensor) -> np.ndarray:
    return vector.numpy().view(np.uint32)


each_method = pytest.mark.parametrize("method", sorted(METHODS))
each_family = pytest.mark.parametrize("family", FAMILIES)


@each_method
@each_family
def test_one_member_gives_itself(method: str, family: str) -> None:
    inputs = inputs_of(pool(family), method)
    got = merged(method, inputs, [0.0, 1.0, 0.0], **WHOLE.get(method, {}))
    member = inputs.members[1]
    if method in EXACT:
        assert np.array_equal(bits(got), bits(member))
    else:
        # seed + (member - seed): two roundings, of numbers no larger than these.
        size = torch.maximum(member.abs(), inputs.members[1].sub(inputs.seed).abs())
        assert bool(((got - member).abs() <= 2**-23 * size.clamp_min(2**-126)).all())


@each_method
@each_family
def test_copies_of_one_member_give_it_back(method: str, family: str) -> None:
    inputs = picked(inputs_of(pool(family), method), [1, 1, 1])
    got = merged(method, inputs, WEIGHTS, **WHOLE.get(method, {}))
    # RegMean's float32 products, times the condition of Gram matrices of 144 tokens.
    loss = 5e-5 if method == "regmean" else 1e-6
    assert torch.allclose(got, inputs.members[0], rtol=2e-6, atol=loss)


@each_method
def test_bits_depend_on_no_thread_or_piece(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of(pool("llama"), method)
    whole = merged(method, inputs, WEIGHTS)
    for threads in (2, 3, 7):
        assert np.array_equal(bits(merged(method, inputs, WEIGHTS, threads)), bits(whole))
    for size in (64, 1 << 10, 1 << 20):
        monkeypatch.setattr(slices_module, "PIECE", size)
        assert np.array_equal(bits(merged(method, inputs, WEIGHTS)), bits(whole))


@each_method
def test_it_is_blind_to_member_order_to_rounding(method: str) -> None:
    inputs = inputs_of(pool("gpt2"), method)
    one = merged(method, inputs, WEIGHTS)
    back = merged(method, picked(inputs, [2, 0, 1]), [WEIGHTS[k] for k in (2, 0, 1)])
    assert torch.allclose(one, back, rtol=0, atol=5e-6)


@each_method
def test_a_member_of_weight_zero_changes_no_bit(method: str) -> None:
    inputs = inputs_of(pool("llama"), method)
    broken = torch.full_like(inputs.members[0], torch.inf)
    with_it = replace(inputs, members=[inputs.members[0], broken, inputs.members[2]])
    got = merged(method, with_it, [0.6, 0.0, 0.4])
    assert np.array_equal(bits(got), bits(merged(method, picked(inputs, [0, 2]), [0.6, 0.4])))


@pytest.mark.parametrize("method", sorted(n for n, m in METHODS.items() if m.prepare))
@each_family
def test_what_is_prepared_once_gives_the_same_merge(method: str, family: str) -> None:
    inputs = inputs_of(pool(family), method)
    prepared = [prepare_member(METHODS[method], inputs, place) for place in range(3)]
    got = merged(method, replace(inputs, prepared=prepared), WEIGHTS)
    assert np.array_equal(bits(got), bits(merged(method, inputs, WEIGHTS)))


@each_method
def test_bfloat16_is_one_rounding_of_the_float32_merge(method: str) -> None:
    inputs = inputs_of(pool("gpt-neox"), method)
    got = merged(method, inputs, WEIGHTS, dtype=torch.bfloat16)
    assert torch.equal(got, merged(method, inputs, WEIGHTS).to(torch.bfloat16))


@each_method
def test_members_are_only_read_and_padding_is_zero(method: str) -> None:
    models = pool("gpt2")
    inputs = inputs_of(models, method)
    before = [member.clone() for member in [*inputs.members, models.seed]]
    got = merged(method, inputs, WEIGHTS)
    assert all(map(torch.equal, before, [*inputs.members, models.seed]))
    assert bool(torch.isfinite(got).all())
    for entry, (_, stop) in zip(models.layout.entries, entry_bounds(models.layout), strict=True):
        assert not got[entry.offset + entry.numel : stop].any()


@each_method
def test_it_says_what_is_missing(method: str) -> None:
    inputs = MergeInputs(members=pool("llama").members)
    if method == "linear":
        merged(method, inputs, WEIGHTS)
    else:
        with pytest.raises(ValueError, match="this merge method needs"):
            merged(method, inputs, WEIGHTS)


@pytest.mark.parametrize("method", ["ties", "fisher", "regmean"])
def test_weights_must_be_shares(method: str) -> None:
    inputs = inputs_of(pool("llama"), method)
    for weights in ([1.5, -0.5, 0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="weights must be >= 0"):
            merged(method, inputs, weights)


@each_method
@pytest.mark.gpu
def test_a_device_gives_the_merge_of_the_cpu(method: str) -> None:
    inputs = inputs_of(pool("llama"), method)
    out = torch.empty(inputs.members[0].numel(), device="cuda")
    run_method(METHODS[method], out, WEIGHTS, inputs)
    assert torch.allclose(out.cpu(), merged(method, inputs, WEIGHTS), rtol=1e-5, atol=1e-5)
