"""Hierarchical search: over whole groups of partitions first, then inside the groups that won.

Each stage is a search of its own by the same algorithm, over a few dozen names instead of
hundreds. The first has at most half the trials; the second may use only partitions of the groups in
the best mixture that the first has scored, and what else that mixture needed to be legal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ablate.mixture import Mixture
from ablate.search.algorithms.task import Algorithm, Task, Value
from ablate.search.spaces import SimplexSpace, SubsetSpace, vector
from ablate.search.spaces.groups import Groups, inside_groups, over_groups, spread

REPEATS = 20  # proposals in a row that are known already, before a stage is taken as done


class ByGroups:
    """Two searches, one after the other; proposals are mixtures of the whole space."""

    def __init__(self, task: Task, groups: Groups, build: Callable[[Task], Algorithm]) -> None:
        """Take the groups of `partition_groups`; `build` makes each stage's algorithm.

        There is one goal: the best groups for one are not those for another.
        """
        assert task.goals == 1
        assert isinstance(task.space, SubsetSpace | SimplexSpace)
        self._task, self._space, self._build = task, task.space, build
        self._groups = groups
        self._over = over_groups(task.space, groups)
        each = [spread(task.space, groups, group) for group in self._over.names]
        self._each = np.array(each)  # [groups, names]: a whole group's weights
        self._half = max(1, task.trials // 2)
        self._inner = build(
            replace(
                task,
                space=self._over,
                trials=self._half,
                ensemble=None if task.ensemble is None else self._ensemble_of_groups,
                ensemble_best=None,
            )
        )
        self.lookahead = self._inner.lookahead
        self._inside = False
        self._asked = 0
        self._open: dict[str, list[Mixture]] = {}
        self._values: dict[str, float | None] = {}
        self._best: tuple[float, set[str]] | None = None  # its value, and what it may be made of

    @property
    def wants_gradient(self) -> bool:
        """Return whether the stages learn from gradients."""
        return bool(getattr(self._inner, "wants_gradient", False))

    def ask(self) -> Mixture | None:
        """Return a mixture not yet proposed; None while its stage waits, and at the end."""
        for _ in range(REPEATS):
            over = not self._inside and self._asked >= self._half
            inner = None if over else self._inner.ask()
            if inner is None:
                break
            mixture = self._lifted(inner)
            key = mixture.key()
            if key in self._values:
                self._inner.tell(inner, self._lowered(self._values[key]))
                continue
            self._open.setdefault(key, []).append(inner)
            if len(self._open[key]) == 1:
                self._asked += 1
                return mixture
        if self._open or self._inside or self._best is None:
            return None
        self._go_inside(self._best[1])
        return self.ask()

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value, or None for a trial that failed."""
        key = mixture.key()
        self._values[key] = value
        for inner in self._open.pop(key, []):
            known = not self._inside and value is not None
            if known and value is not None and (self._best is None or value < self._best[0]):
                inside = {name for group in inner.partitions for name in self._groups[group]}
                self._best = (value, inside | set(mixture.partitions))
            self._inner.tell(inner, self._lowered(value))

    def _go_inside(self, members: set[str]) -> None:
        space = inside_groups(self._space, members)
        best = self._task.ensemble_best
        start = None if best is None else vector(space, best)
        self._inside = True
        self._inner = self._build(
            replace(
                self._task,
                space=space,
                trials=max(1, self._task.trials - self._asked),
                ensemble=None
                if self._task.ensemble is None
                else self._ensemble_inside(space.names),
                ensemble_best=space.nearest(start) if start is not None and start.any() else None,
            )
        )

    def _lifted(self, mixture: Mixture) -> Mixture:
        """Return a stage's mixture as one of the whole space."""
        if self._inside:
            return mixture
        if isinstance(self._space, SubsetSpace):
            held = {name for group in mixture.partitions for name in self._groups[group]}
            members = tuple(n for n in self._space.names if n in held or n in self._space.include)
            if self._space.legal(members):
                return self._space.mixture(members)
        return self._space.nearest(vector(self._over, mixture) @ self._each)

    def _lowered(self, value: float | None) -> float | None:
        """Return a value with the gradient with respect to what the stage varies."""
        if self._inside or not isinstance(value, Value) or value.gradient is None:
            return value
        slopes = np.array([value.gradient.get(name, 0.0) for name in self._space.names])
        along = (self._each @ slopes).tolist()
        return Value(value, value.goals, dict(zip(self._over.names, along, strict=True)))

    def _ensemble_of_groups(self, weights: np.ndarray) -> np.ndarray:
        assert self._task.ensemble is not None
        return self._task.ensemble(weights @ self._each)

    def _ensemble_inside(self, names: tuple[str, ...]) -> Callable[[np.ndarray], np.ndarray]:
        places = [self._space.names.index(name) for name in names]
        ensemble = self._task.ensemble
        assert ensemble is not None

        def proxy(weights: np.ndarray) -> np.ndarray:
            whole = np.zeros((len(weights), len(self._space.names)))
            whole[:, places] = weights
            return ensemble(whole)

        return proxy
