"""Laws of the order of sequences."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.errors import CorpusError
from ablate.train.batches import Windows, window_order


def windows(tokens: int, length: int = 4, rng_seed: int = 0, pieces: int = 1) -> Windows:
    parts = np.array_split(np.arange(tokens, dtype="<u4"), pieces)
    return Windows(parts, length, rng_seed, "unit")


def test_the_order_is_pinned() -> None:
    """Another order would make other models under the same fingerprint."""
    assert window_order(0, 0, 8).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]


def test_every_pass_visits_every_window_once_in_a_new_order() -> None:
    seen = [windows(40).batch(step, 10, 0, 10)[:, 0].tolist() for step in range(3)]
    assert all(sorted(order) == list(range(0, 40, 4)) for order in seen)
    assert seen[0] != seen[1] != seen[2]


def test_batches_run_over_the_end_of_a_pass() -> None:
    stream = windows(40)
    starts = np.concatenate([stream.batch(step, 7, 0, 7)[:, 0] for step in range(10)])
    whole = np.concatenate([window_order(0, number, 10) * 4 for number in range(7)])
    assert starts.tolist() == whole.tolist()


def test_the_order_does_not_depend_on_what_was_read_before() -> None:
    stream = windows(40)
    late = stream.batch(5, 7, 0, 7)
    stream.batch(0, 7, 0, 7)
    assert np.array_equal(stream.batch(5, 7, 0, 7), late)


def test_workers_read_their_rows_of_the_batch() -> None:
    stream = windows(400)
    whole = stream.batch(3, 12, 0, 12)
    parts = [stream.batch(3, 12, rank * 4, rank * 4 + 4) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_slices_read_as_if_joined(pieces: int) -> None:
    one, many = windows(43), windows(43, pieces=pieces)
    assert (many.count, many.dropped_tokens, many.highest()) == (10, 3, 42)
    assert np.array_equal(one.batch(0, 10, 0, 10), many.batch(0, 10, 0, 10))


def test_the_random_seed_changes_the_order() -> None:
    assert window_order(0, 0, 50).tolist() != window_order(1, 0, 50).tolist()


def test_less_than_one_sequence_is_refused() -> None:
    with pytest.raises(CorpusError, match="at least one sequence of 64 tokens, got 40"):
        windows(40, length=64)
