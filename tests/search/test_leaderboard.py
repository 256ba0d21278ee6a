"""The leaderboard's Pareto set and figures."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ablate.errors import StudyError
from ablate.evaluate.statistics import DomainScore
from ablate.mixture import Mixture
from ablate.search.candidates import Candidate
from ablate.search.comparisons import undominated
from ablate.search.journal import Stopped
from ablate.search.leaderboard import Leaderboard
from ablate.search.spaces import subset_space
from ablate.search.table import Trial
from ablate.study import SpaceSettings
from ablate.tables import ranking

NAMES = ("a<b>", "law", "math")
DOMAINS = ("x", "y")
GROUPS = 8


def trial(members: tuple[str, ...], losses: tuple[float, float], kind: str = "proxy") -> Trial:
    rng = np.random.default_rng(len(members))
    scores = {}
    for name, loss in zip(DOMAINS, losses, strict=True):
        groups = np.full(GROUPS, 10 * loss) + 0.01 * rng.standard_normal(GROUPS)
        scores[name] = DomainScore(
            nats=float(groups.sum()),
            tokens=10 * GROUPS,
            bytes=30,
            stderr=0.01,
            groups=tuple(groups.tolist()),
        )
    single = len(members) == 1
    return Trial(
        candidate=Candidate(
            key="+".join(members) or "seed",
            kind="seed" if not members else "unit" if single else "proxy",
            method="linear",
            merge=None if single or not members else "linear",
            unit=0 if single else None,
            mixture=Mixture.uniform(members) if members else None,
            seed_coefficient=0.0,
            coefficients=(),
            tokens=10,
        ),
        scores=scores,
        objective=sum(losses) / 2,
        member_objective=None,
        merge_seconds=0.0,
        evaluate_seconds=0.0,
        error=None,
    )


@pytest.fixture
def board() -> Leaderboard:
    units = dict.fromkeys(NAMES, 1)
    worth = {"a<b>": (-0.5, 0.4), "law": (0.1, -0.6), "math": (0.2, 0.1)}
    rows = [trial((), (4.0, 4.0))]
    for size in (1, 2, 3):
        for members in combinations(NAMES, size):
            x, y = (4 + sum(worth[n][i] for n in members) / size for i in (0, 1))
            rows.append(trial(members, (x, y)))
    return Leaderboard(
        trials=tuple(rows),
        domains=DOMAINS,
        space=subset_space(SpaceSettings(), units, units, "macro"),
        merges=("linear",),
        units=units,
        weights={"x": 0.5, "y": 0.5},
        group_tokens={name: np.full(GROUPS, 10.0) for name in DOMAINS},
        goals={"one <goal>": {"x": 1.0}, "other": {"y": 1.0}},
    )


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(st.tuples(*[st.integers(0, 4)] * width), min_size=1, max_size=25)
    )
)
def test_undominated_is_the_definition(points: list[tuple[int, ...]]) -> None:
    expected = [
        not any(o != p and all(a <= b for a, b in zip(o, p, strict=True)) for o in points)
        for p in points
    ]
    assert undominated(points).tolist() == expected


def test_the_pareto_set_is_of_the_goals_and_of_domains_when_asked(board: Leaderboard) -> None:
    members = [row.partitions for row in board.pareto()]
    assert members == [("law",), ("a<b>", "law"), ("a<b>",)]
    assert [row.partitions for row in board.pareto(["x"])] == [("a<b>",)]
    assert board.pareto([]) == board.pareto()
    assert replace(board, trials=()).pareto() == ()


def test_figures_show_every_mixture_and_escape_names(board: Leaderboard) -> None:
    count = len(board.mixtures)
    by_size, front = board.plot(), board.plot_pareto()
    shown = [len(trace.x) for trace in by_size.data]
    assert shown[0] + shown[1] == count and shown[2] == 3
    assert [len(trace.x) for trace in front.data] == [count - 3, 3]
    effects, pairs = board.plot_effects(), board.plot_interactions()
    assert len(effects.data[0].x) == 3
    table = board.effects()
    assert sorted(effects.data[0].x) == sorted(table["shapley"])
    z = np.array(pairs.data[0].z, dtype=float)
    assert np.array_equal(z, z.T, equal_nan=True) and np.isnan(np.diag(z)).all()
    for figure in (by_size, front, effects, pairs):
        assert "a<b>" not in figure.to_json() and "<goal>" not in figure.to_json()


def test_the_printed_ranking_has_the_pareto_set_within_80_columns(board: Leaderboard) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    for part in ranking(board):
        console.print(part)
    text = console.export_text()
    assert "Pareto set: 3 of 7 mixtures" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_only_stops_of_the_present_question_are_counted(board: Leaderboard) -> None:
    stop = Stopped(race="r", stage=0, share=0.1, tokens=8, estimate=4.0, values=(4.0,))
    row = replace(board.mixtures[-1], objective=None, scores={}, stopped=stop)
    assert row.candidate.kind == "unit" or row.candidate.merge == "linear"
    other = replace(row, candidate=replace(row.candidate, kind="proxy", merge="ties"))
    assert replace(board, trials=(*board.trials, row, other)).stopped == (row,)


def test_a_pareto_plot_needs_goals(board: Leaderboard) -> None:
    with pytest.raises(StudyError, match="objectives"):
        replace(board, goals={}).plot_pareto()


def test_where_all_trials_failed_one_reason_is_told(board: Leaderboard) -> None:
    lost = [replace(r, objective=None, scores={}, error=f"no {r.size}") for r in board.trials]
    with pytest.raises(StudyError, match=r"got no finished trial: 8 failed, one with: no 3"):
        _ = replace(board, trials=tuple(lost)).best
    with pytest.raises(StudyError, match="run `ablate search`"):
        _ = replace(board, trials=()).best
