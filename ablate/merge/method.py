"""What a merge method is: a function, what it needs beside the members, and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Statistics = Literal["fisher", "regmean"]
OptionValue = float | bool


@dataclass(frozen=True, kw_only=True)
class Option:
    """A keyword of a method: its default, the closed range of its values, what it does.

    A default that is a bool or an int asks for a bool or an int.
    """

    default: OptionValue
    low: float
    high: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Method:
    """A merge method as plain facts, so that callers can gather what it needs.

    `function(out, members, weights, *, threads, **needs, **options)` writes the merge into `out`.
    Of the needs it takes `seed` (the seed model, flat), `layout`, `identities` (one string per
    member, such as its fingerprint) and `statistics` (one per member, of the named kind) as the
    fields say.

    `prepare(member, *, **those of prepare_needs, **the options named in prepared_by)` returns what
    of one member does not depend on the mixture; a list of these, in the members' order, may be
    given to `function` as `prepared`, which then does not compute them again. Its needs are among
    `seed`, `layout`, and the member's own `identity` and `statistics`. Where it is None there is
    nothing to prepare.
    """

    function: Callable[..., None]
    needs_seed: bool = False
    needs_layout: bool = False
    needs_identities: bool = False
    statistics: Statistics | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    prepare: Callable[..., Any] | None = None
    prepare_needs: tuple[str, ...] = ()
    prepared_by: tuple[str, ...] = ()
