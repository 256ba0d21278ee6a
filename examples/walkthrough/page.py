"""Run a script of `# %%` cells and write it as one HTML page: prose, code, output, figures.

The cells are those that VS Code, Jupytext and Spyder know. As in a notebook, the value of a cell's
last expression is shown: a plotly figure is drawn, anything else is printed. The page asks the network
for nothing; every text in it is escaped.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

import ablate

CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)

STYLE = """
:root { --ink: #1a1a1a; --soft: #555; --line: #d5d5d5; --paper: #f6f6f4; }
* { box-sizing: border-box; }
html { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #fff; }
body { margin: 0 auto; max-width: 56rem; padding: 1.5rem 1.25rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.3rem; margin-top: 2.4rem; }
pre, code { font: .84rem/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre { overflow-x: auto; overflow-wrap: normal; margin: .5rem 0; padding: .6rem .8rem; }
pre.code { background: var(--paper); border-left: 3px solid var(--line); }
pre.output { border-left: 3px solid var(--ink); }
p code { background: var(--paper); padding: 0 .2rem; }
"""
# Figures are data in the page; a finger on one scrolls the page, only a mouse zooms.
DRAW = """
const mouse = matchMedia("(hover: hover)").matches;
for (const box of document.querySelectorAll(".figure")) {
  const figure = JSON.parse(box.nextElementSibling.textContent);
  if (!mouse) figure.layout.dragmode = false;
  Plotly.newPlot(box, figure.data, figure.layout,
    {responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false});
}
"""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: its text, the line of the script on which it starts, and what its marker says."""

    text: str
    line: int
    mark: str


def run_script(script: str) -> int:
    """Run `script` cell by cell for the folder on the command line; write its page there."""
    if len(sys.argv) != 2:
        print(f"usage: python {Path(script).name} FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    page = folder / Path(script).with_suffix(".html").name
    try:
        html = render(Path(script), {"FOLDER": str(folder)})
    except ablate.UserError as error:
        print(f"{page.stem}: {error}", file=sys.stderr)
        return 2
    page.write_text(html, encoding="utf-8")
    print(f"wrote {page}")
    return 0


def render(script: Path, parameters: dict[str, Any]) -> str:
    """Return the page of a script after running it.

    `parameters` take the place of what the cell tagged `parameters` sets. What cells print goes to
    standard output too.
    """
    values: dict[str, Any] = {"__name__": script.stem, "__file__": str(script)}
    body = []
    for cell in cells(script.read_text(encoding="utf-8")):
        if "[markdown]" in cell.mark:
            body.append(prose(cell.text))
            continue
        body.append(f'<pre class="code">{escape(cell.text)}</pre>')
        body.append(run(cell, script, values))
        if "parameters" in cell.mark:
            values |= parameters
    return framed(script.stem, "\n".join(body))


def cells(source: str) -> Iterator[Cell]:
    """Yield the cells of a script in the percent format; what stands before the first is none."""
    marks = list(CELL.finditer(source))
    ends = [*(mark.start() for mark in marks[1:]), len(source)]
    for mark, end in zip(marks, ends, strict=True):
        text = source[mark.end() : end]
        start = len(text) - len(text.lstrip("\n"))
        line = source.count("\n", 0, mark.end() + start) + 1
        yield Cell(text=text.strip("\n"), line=line, mark=mark.group(1))


def run(cell: Cell, script: Path, values: dict[str, Any]) -> str:
    """Run a code cell in `values` and return what it printed and showed, as HTML."""
    tree = ast.parse("\n" * (cell.line - 1) + cell.text, str(script))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, shown = _Both(sys.stdout), None
    with redirect_stdout(printed):
        exec(compile(tree, str(script), "exec"), values)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), str(script), "eval"), values)
        if shown is not None and not isinstance(shown, go.Figure):
            print(shown)
    text = printed.getvalue()
    parts = [f'<pre class="output">{escape(text)}</pre>'] if text else []
    if isinstance(shown, go.Figure):
        parts.append(drawn(shown))
    return "\n".join(parts)


class _Both(io.StringIO):
    """Keep what is printed, and pass it on at once."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self._other = other

    def write(self, text: str) -> int:
        self._other.write(text)
        self._other.flush()
        return super().write(text)


def drawn(figure: go.Figure) -> str:
    """Return a figure as a box and its data; no text in the data can end the element."""
    data = str(figure.to_json()).replace("<", "\\u003c")
    return f'<div class="figure"></div><script type="application/json">{data}</script>'


def prose(text: str) -> str:
    """Return Markdown comments as HTML: headings, paragraphs, `code` and *emphasis*."""
    lines = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
    return "\n".join(block(part) for part in re.split(r"\n\s*\n", lines.strip()) if part)


def block(text: str) -> str:
    """Return one heading or paragraph."""
    heading = re.match(r"(#{1,3}) (.*)", text)
    if heading:
        level = len(heading.group(1))
        return f"<h{level}>{inline(heading.group(2))}</h{level}>"
    return f"<p>{inline(text)}</p>"


def inline(text: str) -> str:
    """Return a line of prose, escaped; what stands between backticks is taken as it is."""
    parts = escape(text).split("`")
    parts[::2] = [re.sub(r"\*([^*]+)\*", r"<em>\1</em>", part) for part in parts[::2]]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)


def framed(title: str, body: str) -> str:
    """Return the whole page; plotly.js is in it once."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n"
        f"<script>{get_plotlyjs()}</script><script>{DRAW}</script></body></html>\n"
    )
