"""Laws of the linear merge."""

from __future__ import annotations

import inspect
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.merge import METHODS, merge_method
from ablate.merge.linear import linear


def members(count: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for _ in range(count)]


def merged(
    terms: list[torch.Tensor],
    weights: list[float],
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    out = torch.full((terms[0].numel(),), torch.nan, dtype=dtype)
    linear(out, terms, weights, threads=threads)
    return out


SIZES = [1, 15, 16, 63, 64, 65, 1000, 4097, 131_072, 131_073, 300_001]


@pytest.mark.parametrize("size", SIZES)
def test_one_hot_gives_back_the_member_bit_for_bit(size: int) -> None:
    terms = members(3, size)
    terms[1][0] = -0.0
    got = merged(terms, [0.0, 1.0, 0.0])
    assert np.array_equal(got.numpy().view(np.uint32), terms[1].numpy().view(np.uint32))


@pytest.mark.parametrize("size", SIZES)
def test_bits_depend_on_no_slice_thread_or_place(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, weights = members(5, size), [0.3, 0.1, 0.25, 0.05, 0.3]
    whole = merged(terms, weights)
    for threads in (2, 3, 7):
        assert torch.equal(merged(terms, weights, threads), whole)
    for slice_size in (64, 1 << 10, 1 << 20):
        for name in ("SLICE", "SHARED_SLICE"):
            monkeypatch.setattr(sys.modules["ablate.merge.linear"], name, slice_size)
        assert torch.equal(merged(terms, weights), whole)
    for start in (0, size // 3, size - 1):  # an element's bits are the same wherever it stands
        alone = merged([term[start : start + 1].clone() for term in terms], weights)
        assert torch.equal(alone, whole[start : start + 1])


def test_it_reads_views_at_odd_addresses() -> None:
    terms = members(3, 5001)
    shifted = [torch.cat([torch.zeros(1), term])[1:] for term in terms]
    assert torch.equal(merged(shifted, [0.5, 0.2, 0.3]), merged(terms, [0.5, 0.2, 0.3]))


def test_it_equals_a_float64_sum_to_rounding() -> None:
    terms = members(8, 10_007)
    weights = np.random.default_rng(0).dirichlet(np.ones(8)).tolist()
    exact = sum(w * t.double() for w, t in zip(weights, terms, strict=True))
    size = sum(abs(w) * t.double().abs() for w, t in zip(weights, terms, strict=True))
    assert bool(((merged(terms, weights).double() - exact).abs() <= 9 * 2**-24 * size).all())


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8])
def test_copies_of_one_member_give_it_back(count: int) -> None:
    term = members(1, 4099)[0]
    got = merged([term] * count, [1 / count] * count)
    assert torch.allclose(got, term, rtol=count * 2**-24, atol=0)
    if count == 2:
        assert torch.equal(got, term)


def test_it_is_blind_to_member_order_to_rounding() -> None:
    terms, weights = members(6, 4096), [0.1, 0.2, 0.3, 0.15, 0.05, 0.2]
    back = merged(terms[::-1], weights[::-1])
    assert torch.allclose(merged(terms, weights), back, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=2, max_size=5),
    st.floats(-2, 2),
    st.integers(1, 700),
)
def test_it_is_linear_in_the_weights(weights: list[float], factor: float, size: int) -> None:
    terms = members(len(weights), size)
    scaled = merged(terms, [factor * weight for weight in weights])
    assert torch.allclose(scaled, factor * merged(terms, weights), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_one_rounding_of_the_float32_merge() -> None:
    for size in (64, 1001, 200_003):
        terms, weights = members(4, size), [0.4, 0.3, 0.2, 0.1]
        got = merged(terms, weights, dtype=torch.bfloat16)
        assert torch.equal(got, merged(terms, weights).to(torch.bfloat16))


def test_it_reads_shared_memory_without_writing_to_it() -> None:
    array = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    array.setflags(write=False)
    with warnings.catch_warnings():  # torch says once in a process that it must not be written to
        warnings.simplefilter("ignore")
        view = torch.from_numpy(array)
    assert torch.equal(merged([view, view], [0.5, 0.5]), torch.tensor(array))


def test_nothing_with_weight_is_zero() -> None:
    assert not merged(members(2, 100), [0.0, 0.0]).any()


def test_members_must_fit() -> None:
    with pytest.raises(ValueError, match="must be float32 of shape"):
        linear(torch.zeros(4), [torch.zeros(5)], [1.0])
    with pytest.raises(ValueError, match="as many members as weights"):
        linear(torch.zeros(4), [], [])
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        linear(torch.zeros(4, dtype=torch.float16), [torch.zeros(4)], [1.0])


def test_methods_are_found_by_name_or_by_place() -> None:
    assert merge_method("linear") is METHODS["linear"]
    assert inspect.unwrap(merge_method("ablate.merge.linear:linear").function) is linear
    with pytest.raises(StudyError, match="did you mean 'linear'"):
        merge_method("liner")
    with pytest.raises(StudyError, match="can be imported"):
        merge_method("no_such_module:merge")
    with pytest.raises(StudyError, match="did you mean 'linear'"):
        merge_method("ablate.merge.linear:linea")


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 65, 300_001])
def test_a_device_gives_the_bits_of_the_cpu(size: int) -> None:
    terms, weights = members(4, size), [0.4, 0.3, 0.2, 0.1]
    for dtype in (torch.float32, torch.bfloat16):
        out = torch.empty(size, dtype=dtype, device="cuda")
        linear(out, terms, weights)
        assert torch.equal(out.cpu(), merged(terms, weights, dtype=dtype))
