"""The logit-averaged ensemble of unit models: logits(t) = sum_u w_u z_u(t), then softmax.

It needs every unit's logits of the whole vocabulary, so all mixtures are scored in one go: over a
batch of windows each unit's body runs once, its last hidden states are projected once, and the
logits of one mixture after another are summed, a tile at a time. Source: a product of experts, each
distribution raised to its weight (Hinton, Training products of experts by minimizing contrastive
divergence, Neural Computation 14, 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from ablate.evaluate.head import Tiles, Transform, logit_transform
from ablate.evaluate.likelihood import require_finite
from ablate.evaluate.scorer import Merge, Scorer, read_only
from ablate.evaluate.statistics import DomainScore

# A float32 tile for each unit is held, and two more: with 12 units 7 MiB, on a device 0.9 GiB.
CPU_TILES = Tiles(rows=256, columns=512)
DEVICE_TILES = Tiles(rows=2048, columns=8192)

Shares = list[tuple[int, float]]  # the units that count in a mixture, with their weights
Head = tuple[torch.Tensor, torch.Tensor | None]  # weight [columns, width] and bias [columns]
LogitsOf = Callable[[slice], list[torch.Tensor]]  # rows -> float32 [rows, columns] of each unit
Columns = Iterator[tuple[slice, LogitsOf]]  # the vocabulary, some columns after the others


def logit_ensemble(
    scorer: Scorer,
    domain: str,
    units: Sequence[np.ndarray],
    weights: np.ndarray,
    tiles: Tiles | None = None,
) -> list[DomainScore]:
    """Return the score of each mixture on one of the scorer's domains.

    `units` are flat float32 vectors of the scorer's layout; `weights` [mixtures, units]. A unit has
    no part at all in a mixture that gives it no weight. The live model is overwritten. Raises
    RunError, naming the domain, when a loss is not finite.
    """
    used = np.flatnonzero(weights.any(axis=0)).tolist()
    members = [units[place] for place in used]
    shares = [_shares(row) for row in weights[:, used]]
    evaluator = scorer.evaluator
    tiles = tiles or (CPU_TILES if evaluator.device.type == "cpu" else DEVICE_TILES)
    plain = evaluator.head == "chunked"
    pieces = []
    with torch.inference_mode():
        for batch in evaluator.batches(domain):
            for windows in batch.split(len(batch) if plain else 1):
                logits = (_projected if plain else _whole)(scorer, windows, members, tiles.columns)
                targets = windows[:, 1:].flatten()
                pieces.append(_mixed_nats(logits, targets, shares, tiles.rows).cpu())
    nats = torch.cat(pieces, dim=1).numpy()
    require_finite({domain: nats})
    return [evaluator.score_tokens({domain: row})[domain] for row in nats]


def _shares(weights: np.ndarray) -> Shares:
    return [(int(place), float(weights[place])) for place in np.flatnonzero(weights)]


def _projected(
    scorer: Scorer, windows: torch.Tensor, units: Sequence[np.ndarray], columns: int
) -> Columns:
    """Yield logits by projecting the last hidden states of every unit, [tokens, width] each."""
    model = scorer.evaluator.model
    head, transform = model.get_output_embeddings(), logit_transform(model)
    hidden = []
    for unit in units:
        _write(scorer, unit)
        states = model.base_model(input_ids=windows, use_cache=False)[0][:, :-1]
        hidden.append(states.reshape(-1, states.shape[-1]))
    for part in _parts(head.weight.shape[0], columns):
        heads = [_head_in(unit, head, part, like=hidden[0]) for unit in units]
        yield part, partial(_projections, hidden, heads, transform)


def _projections(
    hidden: Sequence[torch.Tensor], heads: Sequence[Head], transform: Transform | None, rows: slice
) -> list[torch.Tensor]:
    found = [
        nn.functional.linear(states[rows], weight, bias).float()
        for states, (weight, bias) in zip(hidden, heads, strict=True)
    ]
    return found if transform is None else [transform(logits) for logits in found]


def _whole(
    scorer: Scorer, windows: torch.Tensor, units: Sequence[np.ndarray], columns: int
) -> Columns:
    """Yield the models' own logits; those of all units are held, [tokens, vocabulary] each."""
    whole = []
    for unit in units:
        _write(scorer, unit)
        logits = scorer.evaluator.model(input_ids=windows, use_cache=False).logits[:, :-1]
        whole.append(logits.reshape(-1, logits.shape[-1]))
    for part in _parts(whole[0].shape[1], columns):
        yield part, partial(_cuts, whole, part)


def _cuts(whole: Sequence[torch.Tensor], columns: slice, rows: slice) -> list[torch.Tensor]:
    return [logits[rows, columns].float() for logits in whole]


def _write(scorer: Scorer, unit: np.ndarray) -> None:
    """Make the live model the unit's: a merge of one."""
    scorer.merge(Merge(method="linear", members=[unit], weights=[1.0], identities=[""]))


def _head_in(unit: np.ndarray, head: nn.Linear, columns: slice, *, like: torch.Tensor) -> Head:
    """Return a unit's projection on some columns, on the device and in the precision of `like`."""
    bias = None if head.bias is None else _place_in(unit, head.bias)[columns].to(like)
    return _place_in(unit, head.weight)[columns].to(like), bias


def _place_in(unit: np.ndarray, parameter: torch.Tensor) -> torch.Tensor:
    """Return the view of a unit's vector that is `parameter` in the live model's."""
    place = parameter.size(), parameter.stride(), parameter.storage_offset()
    return read_only(unit).as_strided(*place)


def _parts(total: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def _mixed_nats(
    logits: Columns, targets: torch.Tensor, mixtures: Sequence[Shares], rows: int
) -> torch.Tensor:
    """Return -log softmax(mixed logits)[targets], float32 [mixtures, tokens]."""
    shape = (len(mixtures), len(targets))
    total = torch.full(shape, -torch.inf, device=targets.device)
    chosen = torch.zeros_like(total)
    for columns, logits_of in logits:
        for part in _parts(len(targets), rows):
            units = logits_of(part)
            place = targets[part] - columns.start
            here = torch.nonzero((place >= 0) & (place < columns.stop - columns.start))[:, 0]
            for number, shares in enumerate(mixtures):
                mixed = _mixed(units, shares)
                chosen[number, part][here] = mixed[here, place[here]]
                total[number, part] = torch.logaddexp(total[number, part], _log_sum_exp(mixed))
    return total - chosen


def _mixed(units: Sequence[torch.Tensor], shares: Shares) -> torch.Tensor:
    (first, weight), *others = shares
    mixed = units[first] * weight
    for place, weight in others:
        mixed.add_(units[place], alpha=weight)
    return mixed


def _log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """Return log sum exp over columns, float32 [rows]; `logits` are overwritten."""
    top = logits.amax(1)
    return logits.sub_(top[:, None]).exp_().sum(1).log_() + top
