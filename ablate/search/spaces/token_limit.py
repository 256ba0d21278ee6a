"""Sets of items whose costs keep a limit: all of them in order, how many there are, uniform draws.

Counting is the knapsack's dynamic programme: how many sets of the first i items have how many
members and which cost. Costs are counted in units of their greatest common divisor, or, where that
makes too many cells, rounded to a grid: then counts beyond `COUNTED` are near estimates, and draws
are uniform but for the rounding. What is drawn keeps the limit in either case.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

CELLS = 1 << 22  # of all tables together, 8 bytes each
COUNTED = 1 << 14  # sets that are counted one by one where costs had to be rounded
DRAWS = 1 << 12  # draws before a rounded table is given up
LARGEST = 2.0**900


@dataclass(frozen=True, kw_only=True)
class TokenLimit:
    """Sets of places in `costs` of `least` to `most` members that cost at most `limit`."""

    costs: tuple[int, ...]
    limit: int
    least: int
    most: int

    @cached_property
    def sizes(self) -> range:
        """Return the sizes at which the cheapest set keeps the limit."""
        fitting = sum(cost <= self.limit for cost in np.cumsum(sorted(self.costs)).tolist())
        return range(self.least, min(self.most, fitting) + 1) if self.limit >= 0 else range(0)

    def of_size(self, size: int) -> Iterator[tuple[int, ...]]:
        """Yield every set of one size in lexicographic order; no dead end is walked."""
        if size not in self.sizes:
            return
        cheapest = cheapest_sums(self.costs)
        chosen: list[int] = []
        room, place = self.limit, 0
        while True:
            missing = size - len(chosen)
            if not missing:
                yield tuple(chosen)
            while missing and place <= len(self.costs) - missing:
                if self.costs[place] + cheapest[place + 1][missing - 1] <= room:
                    break
                place += 1
            else:
                if not chosen:
                    return
                place = chosen.pop()
                room += self.costs[place]
                place += 1
                continue
            chosen.append(place)
            room -= self.costs[place]
            place += 1

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Yield every set, smaller ones first."""
        for size in self.sizes:
            yield from self.of_size(size)

    @property
    def count(self) -> int:
        """Return how many sets there are."""
        return self._facts[0]

    @property
    def total_cost(self) -> int:
        """Return the cost of all sets together."""
        return self._facts[1]

    @cached_property
    def _facts(self) -> tuple[int, int]:
        """Return the number of sets and the cost of all together."""
        if not self.sizes:
            return 0, 0
        grid = self._grid
        if not grid.exact:
            few = [sum(self.costs[i] for i in places) for places in islice(self, COUNTED + 1)]
            if len(few) <= COUNTED:
                return len(few), sum(few)
        ways, costs = self._last[:, : grid.room + 1].sum(axis=0), np.arange(grid.room + 1)
        empty = int(self._has_empty)
        number, cells = float(ways.sum()), float(ways @ costs)
        scale = 1 << self._tables[1]
        return int(number) * scale - empty, int(cells * grid.step) * scale

    def draw(self, rng: np.random.Generator) -> tuple[int, ...] | None:
        """Return the places of one set, ascending; None when there is none, or none was found."""
        if not self.sizes:
            return None
        for _ in range(DRAWS):
            places = self._drawn(rng)
            if places and sum(self.costs[i] for i in places) <= self.limit:
                return places
            if not places and not self.least:
                return places
        return None

    def _drawn(self, rng: np.random.Generator) -> tuple[int, ...]:
        sums = np.cumsum(self._last)
        state = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
        count, cell = divmod(state, self._last.shape[1])
        count += self._first_row
        chances, tables, places = rng.random(len(self.costs)), self._tables[0], []
        for place in range(len(self.costs) - 1, -1, -1):
            before, cost = tables[place], self._grid.cells[place]
            row = count - 1 if self._tracks else 0
            taken = before[row, cell - cost] if row >= 0 and cell >= cost else 0.0
            if chances[place] * (taken + before[count, cell]) < taken:
                places.append(place)
                count, cell = row, cell - cost
        return tuple(places[::-1])

    @property
    def _tracks(self) -> bool:
        """Return whether sizes have to be counted: nothing but the limit bounds them otherwise."""
        return self.least > 1 or self.most < len(self.costs)

    @property
    def _has_empty(self) -> bool:
        """Return whether the tables hold the empty set although it is too small."""
        return not self._tracks and self.least == 1

    @property
    def _first_row(self) -> int:
        return self.sizes[0] if self._tracks else 0

    @cached_property
    def _grid(self) -> _Grid:
        most = self.sizes[-1] if self._tracks else 0
        width = max(1, CELLS // ((len(self.costs) + 1) * (most + 1)))
        step: float = math.gcd(*self.costs) or 1
        exact = self.limit // step < width
        members = self.sizes[-1]
        slack = 0
        if not exact:
            slack = math.ceil(math.sqrt(members))  # three standard deviations of their rounding
            step = max(1, self.limit / max(16, width - slack - 1))
        cells = tuple(round(cost / step) for cost in self.costs)
        return _Grid(cells=cells, room=int(self.limit // step), slack=slack, step=step, exact=exact)

    @cached_property
    def _tables(self) -> tuple[list[npt.NDArray[np.float64]], int]:
        """Return ways[members, cost] of the first i items for every i, and the last's power of two.

        Without sizes to count, `members` is one row. A table that grows beyond a float is scaled:
        draws compare entries of one table.
        """
        grid, most = self._grid, (self.sizes[-1] if self._tracks else 0)
        table = np.zeros((most + 1, grid.room + grid.slack + 1))
        table[0, 0] = 1.0
        tables, power = [table], 0
        for cost in grid.cells:
            longer = table.copy()
            if cost < table.shape[1]:
                kept = table.shape[1] - cost
                if self._tracks:
                    longer[1:, cost:] += table[:-1, :kept]
                else:
                    longer[:, cost:] += table[:, :kept]
            if longer.max() > LARGEST:
                longer /= LARGEST
                power += 900
            table = longer
            tables.append(table)
        return tables, power

    @property
    def _last(self) -> npt.NDArray[np.float64]:
        """Return ways[size, cost] of all items, the rows that are sizes."""
        return self._tables[0][-1][self._first_row :]


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """Costs in cells of `step`, `room` cells within the limit and `slack` more for rounding."""

    cells: tuple[int, ...]
    room: int
    slack: int
    step: float
    exact: bool


def cheapest_sums(costs: Sequence[int]) -> list[list[int]]:
    """Return sums[i][k]: what the k cheapest of costs[i:] cost together."""
    found: list[list[int]] = [[0]]
    ordered: list[int] = []
    for cost in reversed(costs):
        insort(ordered, cost)
        found.append([0, *np.cumsum(ordered).tolist()])
    return found[::-1]
