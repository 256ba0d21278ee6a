"""The page: one file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib

from ablate.report.answer_section import answer_section
from ablate.report.charts import charts_of
from ablate.report.checks import agreement_section
from ablate.report.content import ReportContent
from ablate.report.facts import cost_section, data_section, origin_section
from ablate.report.html import Html, element, joined
from ablate.report.script import SCRIPT
from ablate.report.sections import effects_section, ranking_section, units_section
from ablate.report.style import CSS
from ablate.report.wording import plural

LINKS = (
    ("answer", "Answer"), ("ranking", "Ranking"), ("units", "Units"), ("effects", "Partitions"),
    ("agreement", "Trust"), ("cost", "Cost"), ("data", "Data"), ("reproduce", "Again"),
)  # fmt: skip


def render(content: ReportContent, when: str = "") -> str:
    """Return the report as one HTML page, about 5 MB: plotly.js is in it once.

    `when` is a date to print under the title. The page's policy allows its own scripts, by their
    hashes, and nothing from anywhere else.
    """
    plotly = _plotly_js()
    return (
        "<!DOCTYPE html>\n"
        + element(
            "html",
            Html(
                '<head><meta charset="utf-8">'
                f'<meta http-equiv="Content-Security-Policy" content="{_policy(plotly, SCRIPT)}">'
                '<meta name="viewport" content="width=device-width, initial-scale=1">'
                '<meta name="referrer" content="no-referrer">'
                f"{element('title', f'{content.name}: ablation report')}"
                f"<style>{CSS}</style></head>"
            ),
            element("body", _head(content, when), _main(content)),
            Html(f"<script>{plotly}</script><script>{SCRIPT}</script>"),
            lang="en",
        )
        + "\n"
    )


def _head(content: ReportContent, when: str) -> Html:
    parts = [
        "Which data should the model train on?",
        plural(len(content.board.units), "partition"),
        f"{plural(content.answer.scored, 'mixture')} scored",
        *([when] if when else []),
    ]
    links = joined([element("a", text, href=f"#{mark}") for mark, text in LINKS], " ")
    return element(
        "header",
        element("h1", content.name),
        element("p", " · ".join(parts), class_="sub"),
        element("nav", links, aria_label="Sections"),
    )


def _main(content: ReportContent) -> Html:
    charts = charts_of(content)
    return element(
        "main",
        element("noscript", "The charts need JavaScript; all else is text."),
        answer_section(content),
        ranking_section(content, charts),
        units_section(content, charts),
        effects_section(content, charts),
        agreement_section(content.agreement, content.measured_on, charts),
        cost_section(content),
        data_section(content),
        origin_section(content),
    )


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    # What a browser makes of line ends must not change the hash.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    marks = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {marks}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
