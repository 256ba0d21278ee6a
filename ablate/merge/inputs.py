"""Give each merge method what it needs, of all that is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ablate.merge.method import Method, OptionValue
from ablate.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class MergeInputs:
    """What merges are made from; lists follow the members' order.

    `members` are flat float32 [numel], as is `seed`. What the method at hand does not need may be
    None. `prepared` holds `prepare_member` of each member, or is None to have it computed anew.
    """

    members: Sequence[torch.Tensor]
    seed: torch.Tensor | None = None
    layout: Layout | None = None
    identities: Sequence[str] | None = None
    statistics: Sequence[Any] | None = None
    prepared: Sequence[Any] | None = None


def run_method(
    method: Method,
    out: torch.Tensor,
    weights: Sequence[float],
    inputs: MergeInputs,
    *,
    options: Mapping[str, OptionValue] | None = None,
    threads: int = 1,
) -> None:
    """Write the merge of `inputs` with `weights` into `out`.

    Raises ValueError when the method needs what `inputs` lacks; otherwise as the method.
    """
    needs = {
        "seed": method.needs_seed,
        "layout": method.needs_layout,
        "identities": method.needs_identities,
        "statistics": method.statistics is not None,
    }
    given = {name: _there(name, inputs) for name, needed in needs.items() if needed}
    if method.prepare:
        given["prepared"] = inputs.prepared
    method.function(out, inputs.members, weights, threads=threads, **given, **(options or {}))


def prepare_member(
    method: Method,
    inputs: MergeInputs,
    place: int,
    *,
    options: Mapping[str, OptionValue] | None = None,
) -> Any:
    """Return what of member number `place` does not depend on the mixture; None when nothing.

    It depends on the member, the seed and `prepare_options`: keep it under these.
    """
    if method.prepare is None:
        return None
    plural = {"identity": "identities", "statistics": "statistics"}
    given = {
        need: _there(plural[need], inputs)[place] if need in plural else _there(need, inputs)
        for need in method.prepare_needs
    }
    return method.prepare(inputs.members[place], **given, **prepare_options(method, options))


def prepare_options(
    method: Method, options: Mapping[str, OptionValue] | None = None
) -> dict[str, OptionValue]:
    """Return the options, defaults filled in, on which `prepare_member` depends."""
    defaults = {name: method.options[name].default for name in method.prepared_by}
    return {name: (options or {}).get(name, default) for name, default in defaults.items()}


def _there(name: str, inputs: MergeInputs) -> Any:
    value = getattr(inputs, name)
    if value is None:
        raise ValueError(f"this merge method needs {name}, got none")
    return value
