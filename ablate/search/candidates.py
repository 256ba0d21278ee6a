"""What can be scored: the seed, a unit, or a merge, and the key under which a score is kept.

A key names the merged parameters by their members' fingerprints, never by the pool as a whole:
adding a partition keeps every score that it does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ablate.merge import OptionValue, code_mark, typed_options
from ablate.merge.weights import unit_coefficients
from ablate.mixture import Mixture
from ablate.models.pool import ModelPool
from ablate.study import MergeMethod
from ablate.workspace import fingerprint

Kind = Literal["seed", "unit", "proxy", "trained"]
Member = tuple[str, int]
ENSEMBLE = "ensemble"  # the method that merges nothing: token probabilities are averaged
LOGIT_ENSEMBLE = "logit_ensemble"  # nor does this one: logits are averaged; `validate` scores it


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Parameters to score: `seed_coefficient` * seed + sum of coefficient * unit.

    `merge` is the label of the study's merge, `also` are those of its other merges that make the
    same parameters of this mixture. `run` says how a model that was trained on a mixture was
    trained, `code` is the digest of a merge method of the user's own.
    """

    key: str
    kind: Kind
    method: str
    merge: str | None
    unit: int | None
    mixture: Mixture | None
    seed_coefficient: float
    coefficients: tuple[tuple[Member, float], ...]
    tokens: int
    options: tuple[tuple[str, OptionValue], ...] = ()
    run: tuple[tuple[str, int], ...] = ()
    code: str | None = None
    also: tuple[str, ...] = ()


def seed_candidate(pool: ModelPool) -> Candidate:
    """Return the seed model as a candidate."""
    return Candidate(
        key=fingerprint({"model": pool.seed.fingerprint}),
        kind="seed",
        method="linear",
        merge=None,
        unit=None,
        mixture=None,
        seed_coefficient=1.0,
        coefficients=(),
        tokens=0,
    )


def unit_candidate(pool: ModelPool, member: Member) -> Candidate:
    """Return one unit model as a candidate."""
    unit = pool.by_member[member]
    mixture = Mixture.uniform([unit.partition])
    return _one_model("unit", unit.fingerprint, member, mixture, unit.tokens, unit=unit.index)


def _one_model(
    kind: Kind,
    model: str,
    member: Member,
    mixture: Mixture,
    tokens: int,
    *,
    unit: int | None = None,
    run: tuple[tuple[str, int], ...] = (),
) -> Candidate:
    """Return a model as it is, a member of its pool; `model` is its fingerprint."""
    return Candidate(
        key=fingerprint({"model": model}),
        kind=kind,
        method="linear",
        merge=None,
        unit=unit,
        mixture=mixture,
        seed_coefficient=0.0,
        coefficients=((member, 1.0),),
        tokens=tokens,
        run=run,
    )


def base_candidates(pool: ModelPool) -> list[Candidate]:
    """Return the seed and every unit: what each mixture is compared with."""
    members = [(unit.partition, unit.index) for unit in pool.units]
    return [seed_candidate(pool), *(unit_candidate(pool, member) for member in members)]


def mixture_candidate(pool: ModelPool, mixture: Mixture, merge: MergeMethod) -> Candidate:
    """Return the merge of a mixture's units; a mixture of one unit is that unit itself."""
    seed_share, members = _shares(pool, mixture, merge)
    if len(members) == 1:
        return unit_candidate(pool, members[0][0])
    options = _options(merge)
    code = code_mark(merge.method)
    return Candidate(
        key=_merge_key(pool, merge.method, options, code, seed_share, members),
        kind="proxy",
        method=merge.method,
        merge=merge_label(merge),
        unit=None,
        mixture=mixture,
        seed_coefficient=seed_share,
        coefficients=members,
        tokens=sum(pool.by_member[member].tokens for member, _ in members),
        options=options,
        code=code,
    )


def mixture_candidates(
    pool: ModelPool, mixture: Mixture, merges: Sequence[MergeMethod]
) -> list[Candidate]:
    """Return a mixture's merges, each once: of two units, `scale: 0.5` is the average itself."""
    found: dict[str, Candidate] = {}
    for one in merges:
        candidate = mixture_candidate(pool, mixture, one)
        first = found.setdefault(candidate.key, candidate)
        if candidate.merge not in (first.merge, *first.also):
            found[candidate.key] = replace(first, also=(*first.also, merge_label(one)))
    return list(found.values())


def named_by(candidate: Candidate, pool: ModelPool, merges: Sequence[MergeMethod]) -> Candidate:
    """Return a recalled proxy under the labels that the study's merges give it now."""
    what = (candidate.method, candidate.options)
    own = [one for one in merges if (one.method, _options(one)) == what]
    if candidate.mixture is None or [merge_label(one) for one in own] == [candidate.merge]:
        return candidate
    made = (candidate.seed_coefficient, candidate.coefficients)
    same = [one for one in own if _shares(pool, candidate.mixture, one) == made]
    labels = [merge_label(one) for one in same]
    return replace(candidate, merge=labels[0], also=tuple(labels[1:])) if labels else candidate


def _shares(
    pool: ModelPool, mixture: Mixture, merge: MergeMethod
) -> tuple[float, tuple[tuple[Member, float], ...]]:
    """Return the coefficient of the seed, and those of the units that have any."""
    seed_share, shares = unit_coefficients(mixture, pool.units_of(), merge.scale)
    return seed_share, tuple((member, share) for member, share in shares if share)


def _options(merge: MergeMethod) -> tuple[tuple[str, OptionValue], ...]:
    return tuple(sorted(typed_options(merge.method, merge.options).items()))


def trained_candidate(
    name: str, model: str, mixture: Mixture, tokens: int, run: Mapping[str, int]
) -> Candidate:
    """Return a model truly trained on a mixture; `model` is its fingerprint, `run` how it was.

    Its parameters are the member (name, 0) of a pool of trained models.
    """
    how = tuple(sorted(run.items()))
    return _one_model("trained", model, (name, 0), mixture, tokens, run=how)


def describe(candidate: Candidate) -> dict[str, Any]:
    """Return a proxy as plain values, from which `recall` makes it again."""
    weights = candidate.mixture.weights if candidate.mixture else ()
    return {
        "kind": candidate.kind,
        "merge": candidate.merge,
        "method": candidate.method,
        "unit": candidate.unit,
        "weights": [[name, weight] for name, weight in weights],
        "seed_coefficient": candidate.seed_coefficient,
        "coefficients": [[list(member), share] for member, share in candidate.coefficients],
        "options": dict(candidate.options),
        "code": candidate.code,
        "run": dict(candidate.run),
    }


def recall(pool: ModelPool, record: Mapping[str, Any]) -> Candidate | None:
    """Return the proxy of a journal record, or None when it is none of this pool.

    A merge of some of a partition's units is none: the pool had fewer of them when it was scored.
    """
    members = tuple(((name, int(i)), float(c)) for (name, i), c in record["coefficients"])
    seed_share = float(record["seed_coefficient"])
    if record["kind"] != "proxy" or not all(member in pool.by_member for member, _ in members):
        return None
    options = tuple(sorted(record.get("options", {}).items()))
    code = record.get("code")
    merged = Counter(name for (name, _), _ in members)
    units = pool.units_of()
    if {name: units.get(name) for name, _ in record["weights"]} != merged:
        return None
    if record["key"] != _merge_key(pool, record["method"], options, code, seed_share, members):
        return None
    return Candidate(
        key=record["key"],
        kind="proxy",
        method=record["method"],
        merge=record["merge"],
        unit=None,
        mixture=Mixture(weights=tuple((name, float(w)) for name, w in record["weights"])),
        seed_coefficient=seed_share,
        coefficients=members,
        tokens=sum(pool.by_member[member].tokens for member, _ in members),
        options=options,
        code=code,
    )


def merge_label(merge: MergeMethod) -> str:
    """Return how a merge is named in the table: its method, its scale and options when set."""
    given = dict(_options(merge))
    if merge.scale is not None:
        given["scale"] = merge.scale
    shown = ", ".join(f"{key}={_exact(value)}" for key, value in given.items())
    return f"{merge.method}({shown})" if shown else merge.method


def _exact(value: OptionValue) -> str:
    """Return a number in short where that is all of it: labels tell merges apart."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _merge_key(
    pool: ModelPool,
    method: str,
    options: tuple[tuple[str, OptionValue], ...],
    code: str | None,
    seed_share: float,
    members: tuple[tuple[Member, float], ...],
) -> str:
    named = [[pool.by_member[member].fingerprint, repr(share)] for member, share in members]
    seed = [pool.seed.fingerprint, repr(seed_share)] if seed_share else None
    body: dict[str, Any] = {"method": method, "members": named, "seed": seed}
    if method != "linear":  # others may look at the seed whatever their members' coefficients
        body |= {"options": dict(options), "start": pool.seed.fingerprint}
    if code is not None:
        body["code"] = code
    return fingerprint(body)
