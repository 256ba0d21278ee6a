"""Merge functions and algorithms of the user's own: a right answer, or an error by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ablate.errors import OwnCodeError, RunError, StudyError
from ablate.merge import MergeInputs, check_options, merge_method, run_method, typed_options
from ablate.merge.own import checked

MEMBERS = [torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 0.0, 4.0])]


def right(out: torch.Tensor, members: Sequence[torch.Tensor], weights: Any, **_: Any) -> None:
    out.copy_(sum(w * m for w, m in zip(weights, members, strict=True)))


def unwritten(out: torch.Tensor, members: Any, weights: Any, **_: Any) -> torch.Tensor:
    return members[0] + members[1]


def nothing(out: torch.Tensor, members: Any, weights: Any, **_: Any) -> None:
    pass


def half(out: torch.Tensor, members: Any, weights: Any, **_: Any) -> None:
    out[:1] = members[0][:1]


def resized(out: torch.Tensor, members: Any, weights: Any, **_: Any) -> None:
    out.resize_(2).fill_(0.0)


def divided(out: torch.Tensor, members: Any, weights: Any, **_: Any) -> None:
    torch.div(members[0], members[1], out=out)


def looked_up(out: torch.Tensor, members: Any, weights: Any, **_: Any) -> None:
    raise KeyError("layer")


def without_threads(out: torch.Tensor, members: Any, weights: Any) -> None:
    right(out, members, weights)


def merge(function: Callable[..., Any]) -> torch.Tensor:
    out = torch.tensor([7.0, 7.0, 7.0])  # the merge before
    checked("own:f", function)(out, MEMBERS, [0.5, 0.5], threads=1)
    return out


def test_what_is_written_is_the_merge() -> None:
    assert merge(right).tolist() == [2.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (unwritten, "must write the merge into `out` and return None, got a Tensor"),
        (nothing, "got 3 of 3 that are not"),
        (half, "got 2 of 3 that are not"),
        (resized, "must keep the shape of `out`, [3], got [2]"),
        (divided, "got 1 of 3 that are not"),
        (looked_up, "got KeyError: 'layer'"),
        (without_threads, "got TypeError: "),
    ],
)
def test_what_is_no_merge_is_never_scored(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(RunError, match="merge method 'own:f' must") as caught:
        merge(function)
    assert said in str(caught.value)
    # What raised may pass, and is tried again; a wrong result will be wrong again.
    assert isinstance(caught.value, OwnCodeError) == ("Error: " in said)


def test_a_study_s_own_function_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "number = 3\ndef f(out, members, weights, *, threads, keep):\n    out[:keep] = members[0][:keep]\n"
    (tmp_path / "keeping.py").write_text(text)
    inputs, out = MergeInputs(members=MEMBERS), torch.zeros(3)
    run_method(merge_method("keeping:f"), out, [0.5, 0.5], inputs, options={"keep": 3})
    assert out.tolist() == MEMBERS[0].tolist()
    with pytest.raises(RunError, match="got 1 of 3"):
        run_method(merge_method("keeping:f"), out, [0.5, 0.5], inputs, options={"keep": 2})
    with pytest.raises(StudyError, match="got 'number', a int; name a function"):
        merge_method("keeping:number")


def test_names_of_methods_are_all_told() -> None:
    with pytest.raises(StudyError, match=r"dare, ensemble, fisher.*; did you mean 'ensemble'\?"):
        merge_method("ensembel")


def test_options_have_the_type_that_their_method_takes() -> None:
    assert typed_options("dare", {"rng_seed": 7.0, "density": 1}) == {"rng_seed": 7, "density": 1.0}
    assert type(typed_options("dare", {"density": 1})["density"]) is float
    assert type(typed_options("own:f", {"top_k": 3})["top_k"]) is int
    check_options("dare", {"rng_seed": 7})
    check_options("dare", {"rng_seed": 7.0})
    with pytest.raises(StudyError, match=r"rng_seed must be a whole number from 0 to .*, got 0.5"):
        check_options("dare", {"rng_seed": 0.5})
