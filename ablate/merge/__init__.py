"""Merge methods: pure functions on flat tensors, by name.

| method            | needs beside the members  | when it helps                                     |
|-------------------|---------------------------|---------------------------------------------------|
| linear            | nothing                   | first choice; short branches of one seed          |
| task_arithmetic   | seed                      | members moved in different directions: put back   |
|                   |                           | the length that averaging takes, by a fitted scale|
| ties              | seed                      | few, far apart members that disagree in sign      |
| dare              | seed                      | small, redundant deltas; a control with noise     |
| fisher            | squared gradients         | members that are sure of different parameters     |
| regmean           | seed, Gram matrices       | members trained on different text; costs matrix   |
|                   |                           | products and a pass over text for each member     |

CPU time of a merge in units of linear's, one thread, 8 members of 15M parameters, with what
`prepare_member` returns kept (and with it computed anew): task_arithmetic 1.1, dare 3 (10), fisher 4
(5), ties 7 (16), regmean 12-16 (40; it grows with the layers' width).

`weights` are the mixture's coefficients in every method: >= 0, summing to one. The same inputs give
the same bits whatever the number of threads. A member of weight zero is skipped: it changes nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from ablate.errors import StudyError, did_you_mean
from ablate.merge.dare import dare, drop_masks
from ablate.merge.fisher import fisher, mean_information
from ablate.merge.inputs import MergeInputs, prepare_member, prepare_options, run_method
from ablate.merge.linear import linear
from ablate.merge.method import Method, Option, OptionValue, Statistics
from ablate.merge.own import checked
from ablate.merge.regmean import gram_products, regmean
from ablate.merge.task_arithmetic import task_arithmetic
from ablate.merge.ties import ties, trim_thresholds
from ablate.plugins import resolve

__all__ = [
    "METHODS",
    "MergeInputs",
    "Method",
    "Option",
    "OptionValue",
    "Statistics",
    "check_options",
    "code_mark",
    "merge_method",
    "prepare_member",
    "prepare_options",
    "run_method",
    "typed_options",
]

WHERE = "search.merge.method"
OTHERS = ("ensemble",)  # may stand there too; it merges nothing
SCALE = Option(default=1.0, low=0.0, high=1000.0, meaning="Factor of the merged delta; 1 = as is.")

METHODS: dict[str, Method] = {
    "linear": Method(function=linear),
    "task_arithmetic": Method(function=task_arithmetic, needs_seed=True, options={"scale": SCALE}),
    "ties": Method(
        function=ties,
        needs_seed=True,
        needs_layout=True,
        options={
            "density": Option(
                default=0.2,
                low=1e-6,
                high=1.0,
                meaning="Share of each tensor's deltas that is kept, the largest first.",
            ),
            "scale": SCALE,
        },
        prepare=trim_thresholds,
        prepare_needs=("seed", "layout"),
        prepared_by=("density",),
    ),
    "dare": Method(
        function=dare,
        needs_seed=True,
        needs_layout=True,
        needs_identities=True,
        options={
            "density": Option(
                default=0.5, low=1e-6, high=1.0, meaning="Probability that a delta is kept."
            ),
            "rng_seed": Option(
                default=0, low=0, high=2**63 - 1, meaning="Random seed of what is dropped."
            ),
            "elect": Option(
                default=False, low=0, high=1, meaning="Sum only the sign with the larger mass."
            ),
            "scale": SCALE,
        },
        prepare=drop_masks,
        prepare_needs=("layout", "identity"),
        prepared_by=("density", "rng_seed"),
    ),
    "fisher": Method(
        function=fisher,
        statistics="fisher",
        options={
            "floor": Option(
                default=1e-6,
                low=1e-12,
                high=1e6,
                meaning="Added to all information, in units of its mean; large = the average.",
            ),
            "normalize": Option(
                default=False,
                low=0,
                high=1,
                meaning="Divide each member's information by its mean.",
            ),
        },
        prepare=mean_information,
        prepare_needs=("statistics",),
    ),
    "regmean": Method(
        function=regmean,
        needs_seed=True,
        needs_layout=True,
        statistics="regmean",
        options={
            "alpha": Option(
                default=0.9,
                low=0.0,
                high=1.0,
                meaning="Share of the Gram matrices' off-diagonal that is kept.",
            ),
            "ridge": Option(
                default=1e-6,
                low=1e-12,
                high=1e3,
                meaning="Added to the diagonal, in units of its mean.",
            ),
        },
        prepare=gram_products,
        prepare_needs=("seed", "layout", "statistics"),
        prepared_by=("alpha", "ridge"),
    ),
}


def merge_method(name: str) -> Method:
    """Return the merge method called `name`.

    A user's own `package.module:function` becomes a Method without seed, statistics or known
    options: whatever options the study gives are passed as keywords.

    Raises StudyError when there is none.
    """
    found = resolve(name, METHODS, WHERE, others=OTHERS)
    return found if isinstance(found, Method) else Method(function=checked(name, found))


def typed_options(name: str, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """Return options as their method takes them: 1 is 1.0 where a number is asked for.

    Those of a user's own function stay as they are.
    """
    known = METHODS[name].options if name in METHODS else {}
    return {key: _typed(value, known.get(key)) for key, value in options.items()}


def _typed(value: OptionValue, option: Option | None) -> OptionValue:
    kind = bool if option is None else type(option.default)
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def statistics_kinds(methods: Iterable[str]) -> list[Statistics]:
    """Return what merges by these methods ask of each member, sorted."""
    kinds = {merge_method(name).statistics for name in methods}
    return sorted(kind for kind in kinds if kind is not None)


@cache
def code_mark(name: str) -> str | None:
    """Return the digest of the file that a user's own `package.module:function` stands in, or None.

    It is that of the code as this process found it first. What the file imports is not in it.
    Raises StudyError when there is no such function.
    """
    if ":" not in name:
        return None
    module = sys.modules[inspect.unwrap(merge_method(name).function).__module__]
    file = getattr(module, "__file__", None)
    code = Path(file).read_bytes() if file else b""
    return hashlib.sha256(code).hexdigest()[:16]


def check_options(name: str, options: Mapping[str, OptionValue]) -> None:
    """Raise StudyError, one line, for the first option that a method does not have or allow.

    A user's own function may take any.
    """
    method = merge_method(name)
    if name not in METHODS:
        return
    for key, value in typed_options(name, options).items():
        if key not in method.options:
            known = sorted(method.options)
            remedy = did_you_mean(key, known) if known else f"{name} has no options"
            raise StudyError(
                f"an option of merge method '{name}' must exist, got '{key}'; {remedy}"
            )
        _check_value(f"{name}.{key}", value, method.options[key])


def _check_value(where: str, value: OptionValue, option: Option) -> None:
    kind = type(option.default)
    allowed = (int, float) if kind is float else (kind,)
    fits = type(value) in allowed and math.isfinite(value) and option.low <= value <= option.high
    if not fits:
        rule = (
            "true or false"
            if kind is bool
            else f"{'a whole' if kind is int else 'a'} number from {option.low:g} to {option.high:g}"
        )
        raise StudyError(
            f"merge option {where} must be {rule}, got {value!r}; default is {option.default}: "
            f"{option.meaning}"
        )
