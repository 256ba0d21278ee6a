"""Windows and their statistics."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablate.evaluate.blocks import Domain, block_lengths, group_blocks, scored_bytes
from ablate.evaluate.device import evaluation_dtype, has_bfloat16, pick_device
from ablate.evaluate.statistics import DomainScore, domain_score, ratio_stderr


@given(st.integers(2, 400), st.integers(2, 50))
def test_windows_cover_the_tokens(count: int, length: int) -> None:
    sizes = block_lengths(count, length)
    assert count - sizes.sum() in (0, 1)
    assert (sizes[:-1] == length).all()
    assert sizes[-1] >= 2


@given(st.lists(st.integers(2, 90), min_size=1, max_size=4), st.integers(2, 20))
def test_groups_hold_every_window_once(counts: list[int], length: int) -> None:
    domains = [
        Domain(name=str(i), tokens=np.arange(n) + 1000 * i, token_bytes=np.arange(n))
        for i, n in enumerate(counts)
    ]
    groups = group_blocks(domains, length)
    for place, domain in enumerate(domains):
        found = {
            int(block): row
            for group in groups
            for row, owner, block in zip(group.tokens, group.domains, group.blocks, strict=True)
            if owner == place
        }
        joined = np.concatenate([found[block] for block in sorted(found)])
        assert np.array_equal(joined, domain.tokens[: joined.size])
        starts = np.arange(0, joined.size, length)
        inner = np.setdiff1d(np.arange(joined.size), starts)
        assert scored_bytes(domain, length).sum() == domain.token_bytes[inner].sum()


def test_scores_are_ratios_of_sums() -> None:
    score = domain_score(np.array([10.0, 2.0]), np.array([4, 2]), 12)
    assert score.loss == 2.0
    assert score.perplexity == pytest.approx(math.exp(2))
    assert score.bits_per_byte == pytest.approx(12 / (math.log(2) * 12))
    assert DomainScore.from_json(json.loads(json.dumps(score.to_json()))) == score
    assert math.isnan(domain_score(np.array([1.0]), np.array([1]), 0).bits_per_byte)
    assert domain_score(np.array([9e9]), np.array([1]), 1).perplexity == math.inf


def test_the_standard_error_is_what_resampled_domains_show() -> None:
    rng = np.random.default_rng(0)
    tokens = np.full(60, 31)
    tokens[-1] = 9
    losses = []
    errors = []
    for _ in range(600):
        nats = tokens * rng.normal(3, 0.4, tokens.size)
        losses.append(nats.sum() / tokens.sum())
        errors.append(ratio_stderr(nats, tokens))
    assert np.mean(errors) == pytest.approx(np.std(losses), rel=0.1)
    assert ratio_stderr(np.array([3.0]), np.array([2])) == 0
    assert ratio_stderr(2.0 * tokens, tokens) == pytest.approx(0, abs=1e-12)


def test_devices_are_used_when_reserved_and_there() -> None:
    assert pick_device(0).type == "cpu"
    assert pick_device(1).type == ("cuda" if torch.cuda.is_available() else "cpu")
    cpu = torch.device("cpu")
    assert evaluation_dtype("fp32", cpu) == torch.float32
    wanted = torch.bfloat16 if has_bfloat16(cpu) else torch.float32
    assert evaluation_dtype("bf16", cpu) == wanted
