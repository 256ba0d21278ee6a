"""Names with markup in them, in tables, on the page, in exports and in what a job is known by."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from ablate.export import TEXTS, Answer, Member
from ablate.mixture import Mixture
from ablate.report import render
from ablate.search.table import to_arrow
from ablate.tables import ranking, units_table
from tests.report.boards import Maker

NAMES = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", '"><b>q', "[bold red]x[/]",
    "[link=http://evil]y[/link]", "{{7*7}}", "a: b # c", "- !!python/object/apply:os.system [id]",
    "x" * 900,
]  # fmt: skip


def page_of(names: list[str]) -> str:
    maker = Maker(names)
    return render(maker.content(maker.board(maker.some(30))))


def test_tables_read_no_markup() -> None:
    maker = Maker(NAMES[:6])
    board = maker.board(maker.subsets())
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="truecolor")
    for part in [*ranking(board), units_table(board)]:
        console.print(part)
    text = out.getvalue()
    assert "\x1b]8" not in text and "\x1b[31m" not in text and "\x1b[1;31m" not in text
    assert "[bold red]x[/]" in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_no_name_is_markup_on_the_page() -> None:
    page = page_of(NAMES)
    own = len(re.findall(r"<script>", page_of(["a", "b", "c", "d", "e"])))
    assert len(re.findall(r"<script>", page)) == own
    assert "<img" not in page.split("<script>")[0] and "onerror=alert(2)>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_exports_hold_names_as_data() -> None:
    answer = Answer(
        mixture=Mixture.uniform(NAMES), units=dict.fromkeys(NAMES, 1),
        available_tokens=dict.fromkeys(NAMES, 100), sources={n: (f"{n}.txt",) for n in NAMES},
        members=tuple(
            Member(partition=n, index=0, folder=Path("models/u"), coefficient=0.1) for n in NAMES
        ),
        seed_folder=Path("models/s"), tokenizer_folder=Path("corpus/t"), target_tokens=1000,
    )  # fmt: skip
    weights = json.loads(TEXTS["weights"][".json"](answer))["weights"]
    assert sorted(weights) == sorted(NAMES)
    assert yaml.safe_load(TEXTS["weights"][".yaml"](answer))["weights"] == weights
    olmo = yaml.safe_load(TEXTS["olmo-core"][".yaml"](answer))["sources"]
    assert sorted(source["source_name"] for source in olmo) == sorted(NAMES)
    assert all(re.fullmatch(r"[\w-]+/\*\.npy", source["paths"][0]) for source in olmo)
    blend = TEXTS["megatron"][".txt"](answer).splitlines()
    assert all(re.fullmatch(r"[\d.]+ [\w-]+_text_document", line) for line in blend)
    assert len(yaml.safe_load(TEXTS["mergekit"][".yaml"](answer))["models"]) == len(NAMES)


def test_the_table_of_trials_holds_any_name() -> None:
    maker = Maker(NAMES[:4])
    board = maker.board(maker.subsets())
    assert set(NAMES[:4]) <= {
        n for row in to_arrow(board.trials, board.domains)["partitions"].to_pylist() for n in row
    }


@pytest.mark.parametrize("name", NAMES)
def test_folders_are_slugs(name: str) -> None:
    from ablate.workspace import slug

    assert re.fullmatch("[A-Za-z0-9_-]{1,48}", slug(name))
