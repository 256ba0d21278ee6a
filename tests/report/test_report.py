"""Laws of the report: its numbers are the board's, and no text in it is anything but text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import PLAN, Maker, calibrated
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.report import (
    figures,
    figures_of,
    gather,
    html,
    proxy_against_trained,
    render,
    write_figures,
)
from ablate.search.leaders import leaders_of
from ablate.search.table import Predicted, Trial
from ablate.search.thinning import rows_for_a_fit, thinned
from ablate.tables import ranking
from ablate.workspace import write_json
from tests.security.fuzzing import COUNTS, changed, examples, places, strange_values

NAMES = ("cpp", "law", "math", "web")
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "<!-- <script>",
    "\"quoted' & %{y} {{x}}",
)
TAGS = frozenset(
    re.findall(
        r"\S+",
        "html head meta title style body header h1 h2 h3 p nav a main noscript section strong "
        "code div span ul li table caption thead tbody tr th td small figure figcaption "
        "script details summary label select option pre dl dt dd ",
    )
)
ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        "lang charset http-equiv content name id class style href aria-label aria-labelledby "
        "role tabindex scope colspan type data-chart data-views data-box value autocomplete ",
    )
)
VOID = {"meta"}


class Page(HTMLParser):
    """Elements, attributes, links and texts of a page, and the data blocks by id."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text: list[str] = []
        self.first = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1][0] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data: str) -> None:
        tag = self.open[-1][0] if self.open else ""
        if tag == "script":
            attributes, before = self.scripts.pop()
            self.scripts.append((attributes, before + data))
        elif tag != "style":
            self.text.append(data)
            if any(held.get("class") == "lead" for _, held in self.open):
                self.first += data

    @property
    def data(self) -> dict[str, Any]:
        """Return the data blocks."""
        return {
            str(attributes["id"]): json.loads(text)
            for attributes, text in self.scripts
            if attributes.get("type") == "application/json"
        }


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker(NAMES)


def test_the_first_paragraph_says_what_the_board_says(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    page = Page(render(maker.content(board)))
    best, rows = board.best, {row.partitions: row for row in board.mixtures}
    everything, single = rows[NAMES], min(
        (row for row in board.mixtures if row.size == 1), key=lambda row: row.objective or 0
    )  # fmt: skip
    seed = next(row for row in board.trials if row.candidate.kind == "seed")
    numbers = [f"{len(board.mixtures)}", f"{best.objective:.4f}"]
    for other in (everything, single, seed):
        gap = (other.objective or 0) - (best.objective or 0)
        assert gap == pytest.approx(-board.compare(best, other).mean, abs=1e-6)
        if other is not best:
            share = 100 * (1 - np.exp(-gap))
            numbers += [f"{abs(gap):.4f}", f"{share:.1f}" if share < 9.95 else f"{share:.0f}"]
            numbers += [f"{other.objective:.4f}"] if other is single else []
    assert re.findall(r"\d+(?:\.\d+)?", page.first) == numbers
    assert " + ".join(best.partitions) in page.first


def test_how_sure_is_what_the_paired_test_says(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    text = " ".join(Page(render(maker.content(board))).text)
    others = len(board.tied_with_best()) - 1
    said = f"{others} other mixture" if others else "told from every other mixture"
    assert said in text
    chance = board.compare(board.best, board.mixtures[1]).probability
    shown = "> 99.9 %" if chance > 0.9995 else f"{100 * chance:.1f} %"
    assert f"with probability {shown}" in text
    assert "cannot tell until" in text and "No mixture was trained" not in text


def test_the_page_asks_the_network_for_nothing(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    html = render(maker.content(board, maker.agreement(board)))
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("href", "src", "action", "data")]
    assert links and all(value and value.startswith("#") for value in links)
    assert "src" not in {name for name, _ in page.attributes} and "link" not in page.tags
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policy = next(v for k, v in page.attributes if k == "content" and "default-src" in str(v)) or ""
    assert policy.startswith("default-src 'none'") and "http" not in policy
    own = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(own) == 2
    for text in own:  # what is not listed by its hash is not run
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "http" not in own[1]


@pytest.mark.parametrize("kind", ["subsets", "simplex"])
def test_hostile_names_stay_text(kind: str) -> None:
    maker = Maker(HOSTILE, texts=("<i>text</i>", "plain"), heldout=len(HOSTILE))
    board = maker.board(maker.subsets(), "subsets")
    if kind == "simplex":
        rng = np.random.default_rng(0)
        draws = rng.dirichlet(np.ones(len(HOSTILE)), 20)
        mixtures = [Mixture.of(dict(zip(maker.names, map(float, d), strict=True))) for d in draws]
        board = maker.board(mixtures, "simplex")
    bad = replace(board.trials[-1], error="<svg onload=alert(1)>", objective=None, scores={})
    board = replace(board, trials=(*board.trials, bad))
    agreement = maker.agreement(board)
    agreement["headline"] = "<script>alert(1)</script>"
    page = Page(render(maker.content(board, agreement, name="<h1>study</h1>")))
    assert not page.open
    assert set(page.tags) <= TAGS and {name for name, _ in page.attributes} <= ATTRIBUTES
    assert "script" not in "".join(v or "" for k, v in page.attributes if k == "href")
    text = "".join(page.text)
    for name in (*HOSTILE, "<h1>study</h1>", "<script>alert(1)</script>", "<svg onload=alert(1)>"):
        assert name in text
    for block in page.data.values():
        for label in _labels(block):  # plotly reads tags in labels: only its own line ends and bold
            assert not re.search(r"<(?!br>|b>|/b>|extra>|/extra>)", label), label


def _labels(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [label for item in inner for label in _labels(item)]


def test_agreement_is_shown_and_its_first_line_is_the_headline(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    agreement = maker.agreement(board)
    page = Page(render(maker.content(board, agreement)))
    text = "".join(page.text)
    trust = text[text.index("Can it be trusted?") + len("Can it be trusted?") :]
    assert trust.startswith(agreement["headline"])
    views = page.data["views-agreement"]
    count = len(agreement["mixtures"])
    assert sorted(at for places in views["places"] for at in places) == list(range(count))
    chart = page.data["data-agreement"]["data"]
    assert len(chart) == 2 + len(views["places"])
    assert sum(len(trace["x"]) for trace in chart[2:]) == count
    assert "What this can tell" not in text and "Checked by training" in text


def test_trainings_of_one_mixture_count_once_and_a_lonely_size_is_not_ranked(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    agreement = maker.agreement(board)
    mixtures = agreement["mixtures"]
    agreement["mixtures"] = [{**row, "replicate": n} for row in mixtures for n in range(2)]
    sizes = [row["size"] for row in mixtures]
    ranked = sum(sizes.count(size) >= 3 for size in sizes)
    assert 0 < ranked < len(mixtures)
    text = "".join(Page(render(maker.content(board, agreement))).text)
    assert (
        text.count(f"{len(mixtures)} mixtures trained for real, in {2 * len(mixtures)} train") == 2
    )
    assert f"ranks {ranked} of them with Spearman" in text
    controls = sum(row["control"] for row in mixtures)
    assert f"{controls} of them drawn at random" in text


def test_what_was_measured_on_something_else_says_so(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    agreement = maker.agreement(board)
    assert "was measured" not in "".join(Page(render(maker.content(board, agreement))).text)
    other = agreement | {
        "weights": {"readmes": 1.0},
        "domains": agreement["domains"] | {"reference": "another"},
    }
    text = "".join(Page(render(maker.content(board, other))).text)
    said = "measured for another objective, the loss on readmes and on other text of reference: run"
    assert text.count(said) == 2  # in the answer, and where it is shown


def test_missing_values_of_agreement_leave_gaps(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    agreement = maker.agreement(board)
    agreement["mixtures"][0]["trained"]["objective"] = None
    agreement["mixtures"][1]["predicted"] = {}
    bare = {"schema_version": 1, "headline": "h", "targets": {}, "mixtures": [], "calibration": None,
            "agreement": None, "summary": {"merge": None}, "noise_floor": None}  # fmt: skip
    for value in (agreement, bare):
        assert not Page(render(maker.content(board, value))).open
    figure = proxy_against_trained(agreement)
    drawn = sum(len(trace.x) for trace in figure.data[2:])
    assert drawn == len(agreement["mixtures"]) - 1


SMALL = Maker(NAMES[:2], heldout=1)
SMALL_BOARD = SMALL.board(SMALL.subsets())
AGREEMENT = SMALL.agreement(SMALL_BOARD, 3)
CONTENT = SMALL.content(SMALL_BOARD)


@given(place=st.sampled_from(places(AGREEMENT)), value=strange_values())
@examples(12)
def test_any_other_agreement_is_shown_as_far_as_it_goes(place: tuple[Any, ...], value: Any) -> None:
    COUNTS["agreement.json"] += 1
    agreement = json.loads(json.dumps(changed(AGREEMENT, place, value)))
    assert not Page(render(replace(CONTENT, agreement=agreement))).open


def test_a_calibrated_board_is_told_by_predictions(maker: Maker) -> None:
    board = calibrated(maker.board(maker.subsets()))
    best = board.best.predicted_objective
    assert board.is_calibrated and best is not None
    page = Page(render(maker.content(board, maker.agreement(board))))
    assert f"{best.loss:.4f} (95 %: {best.lower:.4f} to {best.upper:.4f})" in page.first
    within = sum(row.predicted_objective.loss <= best.upper for row in board.mixtures) - 1  # type: ignore[union-attr]
    said = f"{within} other prediction" if within else "No other prediction"
    assert said in "".join(page.text)


def trained(row: Trial, objective: float, key: str) -> Trial:
    """A model truly trained on a row's mixture."""
    candidate = replace(row.candidate, kind="trained", merge=None, key=key)
    return replace(row, candidate=candidate, objective=objective, predicted_objective=None)


def test_gains_are_of_the_number_before_them_and_what_was_trained_comes_last(maker: Maker) -> None:
    board = calibrated(maker.board(maker.subsets()))
    rows = (trained(board.best, 4.5, "as asked"), trained(board.best, 9.5, "of another length"))
    board = replace(board, trials=(*board.trials, *rows), asked=frozenset({"as asked"}))
    best, seed = board.best.predicted_objective, board.trials[0]
    assert best is not None and seed.candidate.kind == "seed" and seed.objective is not None
    said = Page(render(maker.content(board))).first.split(". ")
    assert said[-1] == "A model truly trained on the best mixture has 4.5000."
    assert f"{abs(seed.objective - best.loss):.4f} " in said[-2] and f"{best.loss:.4f}" in said[-3]


def test_what_has_no_prediction_comes_after_all_that_have_one(maker: Maker) -> None:
    """One merge of several failed, so that the mixture lacks a proxy: the others are still ranked."""
    board = calibrated(maker.board(maker.subsets()))
    lost = board.mixtures[0], next(row for row in board.mixtures if row.partitions == NAMES)
    keys = {row.candidate.key for row in lost}
    part = replace(
        board,
        trials=tuple(
            replace(row, predicted_objective=None) if row.candidate.key in keys else row
            for row in board.trials
        ),
    )
    assert part.is_calibrated and {row.candidate.key for row in part.mixtures[-2:]} == keys
    kept = [row.candidate.key for row in board.mixtures if row.candidate.key not in keys]
    assert [row.candidate.key for row in part.mixtures[:-2]] == kept
    page = Page(render(maker.content(part)))
    assert "Of the mixture of all partitions nothing is predicted." in page.first
    drawn = [value for trace in part.plot().data for value in trace.y]
    assert not {row.objective for row in lost} & set(drawn)
    console = Console(width=80, file=io.StringIO(), record=True)
    for table in ranking(part):
        console.print(table)
    text = console.export_text()
    assert f"{part.best.predicted_objective.loss:.4f}" in text  # type: ignore[union-attr]


def test_a_mixture_is_not_compared_with_another_merge_of_itself(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    other = tuple(
        replace(
            row,
            candidate=replace(row.candidate, merge="dare", key=f"dare {row.candidate.key}"),
            objective=row.objective + 0.1,
        )
        for row in board.trials
        if row.candidate.kind == "proxy" and row.objective is not None
    )
    whole = next(row for row in board.trials if row.partitions == NAMES)
    board = replace(board, trials=(*other, *board.trials), merges=("dare", "linear"))
    best = Predicted(loss=1.0, lower=0.9, upper=1.1)
    alike = [
        replace(row, predicted_objective=best) if row.partitions == NAMES else row
        for row in calibrated(board).trials
    ]
    board = replace(board, trials=tuple(alike))
    assert board.best.candidate.key == whole.candidate.key
    answer = maker.content(board).answer
    assert answer.is_everything and answer.against("everything") is None
    assert "It is the mixture of all partitions." in Page(render(maker.content(board))).first


def test_the_best_single_partition_may_be_one_whose_units_were_not_merged(maker: Maker) -> None:
    many = next(name for name, count in maker.units.items() if count > 1)
    board = maker.board([m for m in maker.subsets() if m.partitions != (many,)])
    low = [
        replace(row, objective=0.5) if row.candidate.kind == "unit" and row.partitions == (many,)
        else row
        for row in board.trials
    ]  # fmt: skip
    single = maker.content(replace(board, trials=tuple(low))).answer.against(
        "best single partition"
    )
    assert single is not None and single.label.startswith(f"{many}, unit ")


def test_the_plot_of_a_board_shows_what_ranks_it_within_the_bounds_of_the_page(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = maker.board(maker.subsets())
    ranked = calibrated(board)
    for one in (board, ranked):
        figure = one.plot()
        joined = next(trace for trace in figure.data if trace.name == "best of its size")
        assert list(joined.y) == [one.worth(row) for row in one.best_of_size.values()]
        assert one.ranked_by in figure.layout.yaxis.title.text
    monkeypatch.setattr("ablate.search.leaders.EXACT_UP_TO", 2)
    monkeypatch.setattr("ablate.search.leaderboard.Leaderboard.tied_with_best", None)
    monkeypatch.setattr("ablate.search.plots.POINTS", 3)
    large_plot = board.plot()
    assert "half of all" in [trace.name for trace in large_plot.data]
    points = [t for t in large_plot.data if t.name in ("mixture", "cannot be told from the best")]
    assert sum(len(trace.x) for trace in points) == 3
    monkeypatch.setattr("ablate.search.thinning.rows_for_a_fit", lambda _: 12)
    large = Maker([f"p{i}" for i in range(6)], heldout=0, groups=4)
    some = large.board(large.subsets()[:50])
    assert np.allclose(
        sorted(some.plot_effects().data[0].x), sorted(thinned(some).effects()["shapley"])
    )


def test_proportions_have_no_partition_effects_and_say_why(maker: Maker) -> None:
    rng = np.random.default_rng(0)
    mixtures = [
        Mixture.of(dict(zip(NAMES, map(float, rng.dirichlet(np.ones(4))), strict=True)))
        for _ in range(12)
    ]
    content = maker.content(maker.board(mixtures, "simplex"))
    assert not {"effects", "interactions"} & figures_of(content).keys()
    text = "".join(Page(render(content)).text)
    assert "search.space.kind must be subsets" in text
    assert "The mixture of all partitions is not scored" in text


def test_proportions_that_are_almost_the_same_are_shown_once(maker: Maker) -> None:
    ends = [0.5, 0.505, 0.515, 0.53, 0.7, 0.701]  # of the first partition; the rest is the second's
    mixtures = [Mixture.of({NAMES[0]: share, NAMES[1]: 1 - share}) for share in ends]
    board = maker.board(mixtures, "simplex")
    rows = [row for row in board.mixtures if row.size == 2]
    first = [dict(row.candidate.mixture.weights)[NAMES[0]] for row in rows if row.candidate.mixture]
    assert sorted(first) == pytest.approx(ends)
    kept = [place for place, _ in board.apart(rows, 9)]
    for place, share in enumerate(first, start=1):
        near = [abs(share - first[other - 1]) < 0.02 for other in kept if other < place]
        assert any(near) == (place not in kept)
    assert 2 < len(kept) < 5 and [place for place, _ in board.apart(rows, 2)] == kept[:2]
    subsets = maker.board(maker.subsets())
    assert [place for place, _ in subsets.apart(subsets.mixtures, 4)] == [1, 2, 3, 4]

    content = maker.content(board)
    hidden = {row.candidate.key for place, row in enumerate(rows, start=1) if place not in kept}
    assert not hidden & {item.key for item in content.places}
    assert all(item.row.candidate.key not in hidden for item in content.answer.comparisons)
    assert "within 2% of the best one are none of its runners-up" in "".join(
        Page(render(content)).text
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    for table in ranking(board):
        console.print(table)
    text = console.export_text()
    for place in range(1, 7):
        assert (f"{place}/6" in text) == (place in kept[:3])
    assert "Proportions within 2% of those above them are left out." in text


def test_a_board_of_failed_trials_renders(maker: Maker) -> None:
    rows = [replace(row, error="ran out of memory", objective=None, scores={})
            for row in maker.board(maker.subsets()).trials]  # fmt: skip
    for board in (maker.leaderboard(rows), maker.leaderboard([])):
        page = Page(render(maker.content(board)))
        assert not page.open and not page.data
    assert "run `ablate search`" in "".join(page.text)


def test_scores_without_sums_render_without_a_test(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    rows = [
        replace(row, scores={n: replace(s, groups=()) for n, s in row.scores.items()})
        for row in board.trials
    ]
    text = "".join(Page(render(maker.content(replace(board, trials=tuple(rows))))).text)
    assert "nothing is tested here" in text


def test_costs_are_what_the_models_say(maker: Maker, tmp_path: Path) -> None:
    for folder, kind, tokens in (("seed-5eed", "seed", 900), ("unit-0-0", "unit", 120)):
        (tmp_path / "models" / folder).mkdir(parents=True)
        training = {"kind": kind, "tokens": tokens, "seconds": 10.0}
        write_json(tmp_path / "models" / folder / "training.json", training)
    board = maker.board(maker.subsets())
    costs = maker.content(board, root=str(tmp_path)).costs
    trained = {stage.name: stage for stage in costs.stages if stage.name.startswith("train")}
    assert [stage.tokens for stage in trained.values()] == [900, 120]
    scored = next(stage for stage in costs.stages if stage.name == "score")
    assert scored.tokens == sum(s.tokens for row in board.trials for s in row.scores.values())
    spent = sum(stage.flops or 0 for stage in trained.values())
    assert spent == 6 * PLAN["parameters"] * 1020
    assert costs.naive_seconds == pytest.approx(20 * PLAN["naive_flops"] / spent)
    bare = gather(board, study=maker.study(), corpus=maker.corpus(), pool=maker.pool())
    assert bare.costs.flops == 0 and not Page(render(bare)).open


def test_the_page_is_the_same_every_time(maker: Maker) -> None:
    board = maker.board(maker.subsets())
    assert render(maker.content(board)) == render(maker.content(board))


def test_two_hundred_partitions_stay_readable() -> None:
    maker = Maker([f"field-{i:03}" for i in range(200)], heldout=40, groups=8)
    board = maker.board(maker.some(80))
    content = maker.content(board, maker.agreement(board))
    figures = figures_of(content)
    heat = figures["units"]
    assert len(heat.data[0].y) == sum(maker.units.values()) and heat.layout.height < 2500
    assert len(heat.layout.yaxis.ticktext) < 150
    assert len(figures["effects"].data[0].x) == 40 if "effects" in figures else True
    assert len(render(content).encode()) < 8e6


def test_fifty_thousand_trials_stay_light() -> None:
    maker = Maker([f"field-{i:02}" for i in range(12)], texts=("text",), heldout=0, groups=4)
    few = maker.some(1_000)
    board = maker.board(few)
    copies = [
        replace(row, candidate=replace(row.candidate, key=f"{row.candidate.key}{n}",
                mixture=Mixture.of({**dict(row.candidate.mixture.weights), "field-00": 0.01 + n / 100})))
        for n in range(50) for row in board.mixtures if row.candidate.mixture
    ]  # fmt: skip
    large = maker.leaderboard([*maker.base(), *copies], "simplex")
    assert len(large.mixtures) > 45_000
    page = render(maker.content(large))
    assert len(page.encode()) < 6e6
    drawn = Page(page).data["data-by_size"]["data"]
    assert max(len(trace["text"]) for trace in drawn if "text" in trace) <= 400


def test_the_bound_for_large_boards_holds_all_leaders(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = maker.board(maker.subsets())
    exact = leaders_of(board)
    monkeypatch.setattr("ablate.search.leaders.EXACT_UP_TO", 2)
    monkeypatch.setattr("ablate.search.leaders.CHUNK", 4)
    bound = leaders_of(board)
    assert exact and bound and exact.exact and not bound.exact
    assert exact.keys <= bound.keys


def test_a_fit_keeps_the_ends_and_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_for_a_fit(16) > 50_000 and 200 < rows_for_a_fit(200) < 3_000
    maker = Maker([f"p{i}" for i in range(8)], heldout=0, groups=4)
    board = maker.board(maker.subsets()[:200])
    monkeypatch.setattr("ablate.search.thinning.rows_for_a_fit", lambda _: 80)
    part = thinned(board)
    assert len(part.mixtures) == 80
    assert sum(row.size == 1 for row in part.mixtures) == 8
    assert {row.candidate.key for row in part.mixtures} < {r.candidate.key for r in board.mixtures}


def test_figures_as_files_name_the_remedy(maker: Maker, tmp_path: Path) -> None:
    found = figures_of(maker.content(maker.board(maker.subsets())))
    with pytest.raises(StudyError, match="svg, pdf, png"):
        write_figures(found, tmp_path, ["bmp"])

    class NoKaleido:
        layout = found["ranking"].layout

        def to_image(self, **_: Any) -> bytes:
            raise RuntimeError("Image export requires the Kaleido package ... pip install kaleido")

    with pytest.raises(StudyError, match=r"pip install 'kaleido>=1'"):
        write_figures({"ranking": NoKaleido()}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_units_of_long_names_keep_their_numbers() -> None:
    head = "a b c very long name of a partition, which goes on for more than sixty characters"
    rows = ["short 0", *(f"{head} {unit}" for unit in (0, 1, 12)), f"{head}, another 1", head]
    figure = figures.heat_map(np.zeros((len(rows), 2)), rows, ["objective", head])
    for labels in (figure.layout.yaxis.ticktext, figure.data[0].y):
        assert len(set(labels)) == len(rows) and labels[0] == "short 0"
        assert [label.split("…")[1] for label in labels[1:4]] == [" 0", " 1", " 12"]
    assert all(len(label) <= figures.LABEL + 4 for label in figure.layout.yaxis.ticktext)


def test_print_tears_no_figure_and_no_short_table_in_two(maker: Maker) -> None:
    page = render(maker.content(maker.board(maker.subsets())))
    assert "Math.min(full.get(box), 840)" in page and ".whole { break-inside: avoid; }" in page
    rows = [(str(row), row) for row in range(60)]
    for count, whole in ((3, True), (60, False)):
        found = html.table(("a", "b"), rows[:count], caption="c")
        assert ('class="scroll whole"' in found) is whole


def test_a_single_partition_that_is_its_own_training_is_said_once(maker: Maker) -> None:
    board = calibrated(maker.board(maker.subsets()))
    known = Predicted(5.7887, 5.7887, 5.7887)
    rows = tuple(
        replace(row, predicted_objective=known, objective=5.7887) if row.size == 1 else row
        for row in board.trials
    )
    content = maker.content(replace(board, trials=rows))
    single = content.answer.against("best single partition")
    assert single is not None and single.is_trained
    assert single.interval is None and single.trained == 5.7887
    page = render(content)
    assert "5.7887 to" not in page
    (line,) = re.findall(r"<tr><th[^>]*>best single partition.*?</tr>", page)
    assert line.count("5.7887") == 1 and ">–</td>" in line
