"""Agreement with mergekit's own merge functions, where mergekit is installed.

It is no dependency: it asks for older versions of others. In an environment of its own
(mergekit 0.1.4) this file runs by `pytest -c /dev/null tests/merge/test_mergekit.py` from the
repository's root; it needs nothing of the package but `ablate.merge`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mergekit", reason="mergekit is not installed")

from mergekit.architecture import WeightInfo
from mergekit.common import ImmutableMap, ModelReference
from mergekit.io.tasks import GatherTensors
from mergekit.merge_methods.registry import REGISTERED_MERGE_METHODS

from ablate.merge import METHODS, MergeInputs, run_method
from ablate.merge.dare import drop_masks
from ablate.models.layout import Entry, Layout

WEIGHTS = [0.4, 0.3, 0.2, 0.1]
SHAPE = (257, 129)
LAYOUT = Layout(entries=(Entry(name="w", shape=SHAPE, offset=0),), numel=257 * 129 + 7)


def tensors() -> list[torch.Tensor]:
    """Return a seed and four members of one tensor, steps like those of training."""
    generator = torch.Generator().manual_seed(0)
    seed = 0.02 * torch.randn(SHAPE, generator=generator)
    steps = [0.003 * torch.randn(SHAPE, generator=generator) for _ in WEIGHTS]
    return [seed, *(seed + step for step in steps)]


def theirs(method: str, items: list[torch.Tensor], options: dict[str, Any]) -> torch.Tensor:
    names = [ModelReference.model_validate(f"m{place}") for place in range(len(items))]
    each = {k: v for k, v in options.items() if k == "density"}
    own = {
        name: ImmutableMap({"weight": weight, **each})
        for name, weight in zip(names, [1.0, *WEIGHTS], strict=True)
    }
    task = REGISTERED_MERGE_METHODS[method]
    settings = {p.name: p.default_value for p in task.parameters()}
    settings.update({k: v for k, v in options.items() if k in settings})
    made = task.make_task(
        output_weight=WeightInfo(name="w"),
        tensors=GatherTensors(weight_info=ImmutableMap({})),
        base_model=names[0],
        parameters=ImmutableMap(settings),
        tensor_parameters=ImmutableMap(own),
    )
    return made.execute(tensors=dict(zip(names, items, strict=True)))


def ours(method: str, items: list[torch.Tensor], **options: Any) -> torch.Tensor:
    flat = [torch.nn.functional.pad(item.flatten(), (0, 7)) for item in items]
    inputs = MergeInputs(
        members=flat[1:], seed=flat[0], layout=LAYOUT, identities=["a", "b", "c", "d"]
    )
    out = torch.empty_like(flat[0])
    run_method(METHODS[method], out, WEIGHTS, inputs, options=options)
    return out[:-7].view(SHAPE)


def same_masks(density: float) -> Callable[..., torch.Tensor]:
    """Return a `torch.bernoulli` that draws what `drop_masks` draws, member after member."""
    left = iter(["a", "b", "c", "d"])

    def draw(probability: torch.Tensor) -> torch.Tensor:
        bits = drop_masks(layout=LAYOUT, identity=next(left), rng_seed=0, density=density)
        return torch.from_numpy(np.unpackbits(bits)[: 257 * 129]).view(SHAPE).float()

    return draw


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    found = float((one - other).abs().max())
    print(f"max abs difference {found:.3g}")
    return found


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_task_arithmetic(scale: float) -> None:
    items = tensors()
    got = ours("task_arithmetic", items, scale=scale)
    assert difference(got, theirs("task_arithmetic", items, {"lambda": scale})) < 1e-7


def test_linear() -> None:
    items = tensors()
    got = ours("linear", items)
    base, *members = items
    names = [ModelReference.model_validate(f"m{place}") for place in range(4)]
    made = REGISTERED_MERGE_METHODS["linear"].make_task(
        output_weight=WeightInfo(name="w"),
        tensors=GatherTensors(weight_info=ImmutableMap({})),
        parameters=ImmutableMap({"normalize": True}),
        tensor_parameters=ImmutableMap(
            {n: ImmutableMap({"weight": w}) for n, w in zip(names, WEIGHTS, strict=True)}
        ),
    )
    exact = made.execute(tensors=dict(zip(names, members, strict=True)))
    assert base.shape == exact.shape and difference(got, exact) < 1e-7


@pytest.mark.parametrize("density", [0.1, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_ties(density: float, scale: float) -> None:
    items = tensors()
    got = ours("ties", items, density=density, scale=scale)
    assert difference(got, theirs("ties", items, {"density": density, "lambda": scale})) < 1e-7


@pytest.mark.parametrize("density", [0.1, 0.5])
@pytest.mark.parametrize(("elect", "name"), [(False, "dare_linear"), (True, "dare_ties")])
def test_dare_on_the_same_masks(
    density: float, elect: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = tensors()
    got = ours("dare", items, density=density, elect=elect)
    monkeypatch.setattr(torch, "bernoulli", same_masks(density))
    # Without its rescaling, which keeps a tensor's sum of magnitudes; the paper's is 1 / density.
    exact = theirs(name, items, {"density": density, "rescale": False, "lambda": 1 / density})
    assert difference(got, exact) < 1e-7
    monkeypatch.setattr(torch, "bernoulli", same_masks(density))
    near = theirs(name, items, {"density": density})
    assert float((near - got).abs().mean()) < 0.05 * float((got - items[0]).abs().mean())
