"""The report: one self-contained HTML page about a study, and its figures.

`ablate.report(study)` writes it: `gather` makes the content, `render` the page, `figures_of` and `write_figures` the figures alone.
"""

from __future__ import annotations

from ablate.report.charts import figures_of
from ablate.report.content import ReportContent, gather
from ablate.report.figures import proxy_against_trained
from ablate.report.files import write_figures
from ablate.report.page import render
from ablate.verb_package import make_callable

__all__ = [
    "ReportContent",
    "figures_of",
    "gather",
    "proxy_against_trained",
    "render",
    "write_figures",
]

make_callable(__name__)
