"""The examples, run in small as their user would, and checked by other code.

One tiny workspace serves them all: three fields in four parts, one of them with a hostile name.
Whole runs, as processes of their own, are marked slow.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import ablate
from ablate.engine import score_study

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LIBRARY = Path(sysconfig.get_path("stdlib"))
HOSTILE = "<img src=x onerror=alert(1)>"
# field -> the package that its text is from, and in how many parts
FIELDS = {"email": ("email", 2), "asyncio": ("asyncio", 1), HOSTILE: ("unittest", 1)}
PART, WINDOW = 21_000, 64  # characters of a part, tokens of a window
SMALL = (
    "corpus.unit_tokens=6_000",
    "tokenizer.train.vocab_size=512",
    "model.overrides={hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, "
    "num_attention_heads: 2}",
    "seed.tokens=24_000",
    f"train.sequence_length={WINDOW}",
    "train.learning_rate=3e-3",
    "evaluate.tokens_per_domain=1_024",
    "evaluate.domains={reference: texts/reference.jsonl.gz, library: texts/library.jsonl.gz}",
    "validate.mixtures=8",
)


def source(pattern: str, size: int) -> str:
    """Return the first `size` characters of some files of the standard library."""
    return "".join(file.read_text("utf-8") for file in sorted(LIBRARY.glob(pattern)))[:size]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))


def documents(text: str, **values: str) -> list[dict[str, str]]:
    return [{"text": text[at : at + 900], **values} for at in range(0, len(text), 900)]


def write_texts(folder: Path) -> None:
    """Write what make_corpus.py would, of other text and with a hostile field."""
    texts = folder / "texts"
    texts.mkdir()
    rows = []
    for field, (package, parts) in FIELDS.items():
        text = source(f"{package}/*.py", PART * parts)
        for number in range(parts):
            part = text[number * PART : (number + 1) * PART]
            rows += documents(part, field=field, part=str(number + 1))
    write(texts / "fields.jsonl.gz", rows)
    write(texts / "seed.jsonl.gz", documents(source("multiprocessing/*.py", 80_000)))
    write(texts / "library.jsonl.gz", documents(source("json/*.py", 20_000)))
    reference = "".join(topics[name] for name in sorted(topics))[:20_000]
    write(texts / "reference.jsonl.gz", documents(reference))


@pytest.fixture(scope="module")
def modules() -> Iterator[None]:
    """The examples' folders can be imported from, in this process and in those of Ray."""
    folders = [str(path) for path in EXAMPLES.iterdir() if path.is_dir()]
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *folders]))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, modules: None) -> Iterator[Path]:
    """A folder in which the even view of examples/fields_of_study is trained and searched."""
    from ablate.cluster.session import session
    from ablate.resources import Cluster

    root = tmp_path_factory.mktemp("fields")
    write_texts(root)
    study = (EXAMPLES / "fields_of_study/study.yaml").read_text()
    (root / "study.yaml").write_text(study)
    with session(Cluster(cpus=2)):
        asked = ablate.load_study(root / "study.yaml", [*SMALL, "workspace=work/even"])
        ablate.search(asked, ablate.train(asked))
        yield root


@pytest.fixture(scope="module")
def checked(folder: Path) -> Path:
    """The same folder with true runs, by the example's own script."""
    importlib.import_module("run").run_even(folder, SMALL)
    return folder


def table(workspace: Path) -> list[dict[str, Any]]:
    return pq.read_table(workspace / "trials.parquet").to_pylist()


def correlation(x: np.ndarray, y: np.ndarray, *, ranked: bool) -> float:
    """Return Pearson's, or by ranks Spearman's, correlation of values without ties."""
    if ranked:
        x, y = x.argsort().argsort(), y.argsort().argsort()
    return float(np.corrcoef(x, y)[0, 1])


@pytest.mark.slow
def test_the_tables_are_what_the_scored_models_say(checked: Path) -> None:
    tables = importlib.import_module("tables")
    even = checked / "work/even"
    found = tables.agreement(tables.read_table(even), {"merge": "micro", "members": "members"})
    partitions = {"email-1", "email-2", "asyncio-1", f"{HOSTILE}-1"}
    rows = table(even)
    assert [(r.texts, r.proxy, r["size"], r.mixtures) for _, r in found.iterrows()] == [
        (texts, proxy, size, 4)
        for texts in ("in-domain", "outside")
        for proxy in ("merge", "members")
        for size in (2, 3)
    ]
    for _, cell in found.iterrows():
        inside = partitions if cell.texts == "in-domain" else {"reference", "library"}
        pairs = []
        for true in (r for r in rows if r["kind"] == "trained" and r["size"] == cell["size"]):
            same = [r for r in rows if set(r["partitions"]) <= set(true["partitions"])]
            if cell.proxy == "merge":
                proxy = [r for r in same if r["merge"] == "linear" and r["size"] == cell["size"]]
            else:
                proxy = [r for r in same if r["kind"] == "unit"]
            of = [np.mean([np.exp(r[f"loss/{name}"]) for r in proxy]) for name in sorted(inside)]
            pairs.append((of, [np.exp(true[f"loss/{name}"]) for name in sorted(inside)]))
        x, y = np.array(pairs).transpose(1, 2, 0)  # [texts, mixtures]
        for name, ranked in (("Pearson", False), ("Spearman", True)):
            each = [correlation(a, b, ranked=ranked) for a, b in zip(x, y, strict=True)]
            assert cell[name] == pytest.approx(np.mean(each))
            whole = correlation(x.mean(axis=0), y.mean(axis=0), ranked=ranked)
            assert cell[f"{name} of mean"] == pytest.approx(whole)


@pytest.mark.slow
def test_the_costs_are_counted_by_hand(checked: Path) -> None:
    tables = importlib.import_module("tables")
    frame = tables.read_table(checked / "work/even")
    cost = tables.cost(frame[frame["size"] <= 3]).set_index("")
    units = [row for row in table(checked / "work/even") if row["kind"] == "unit"]
    assert len({row["tokens"] for row in units}) == 1 and len(units) == 4
    assert cost["trainings"].tolist() == [4, 8, 4 + 6 + 4, 15]
    assert cost["times"].tolist() == [1, (4 * 2 + 4 * 3) / 4, (4 + 6 * 2 + 4 * 3) / 4, 8]


def flat(file: Path) -> np.ndarray:
    return np.concatenate([t.double().numpy().ravel() for _, t in sorted(load_file(file).items())])


@pytest.mark.slow
def test_own_merge_is_numpys_median_of_the_units(folder: Path) -> None:
    merges = importlib.import_module("my_merge")
    files = sorted((folder / "work/even/models").glob("unit-*/model.safetensors"))
    members = [torch.from_numpy(flat(file)).float() for file in files]
    assert len(members) == 4
    for count in (2, 3, 4):
        out = torch.empty_like(members[0])
        merges.median(out, members[:count], [1 / count] * count)
        exact = np.median(torch.stack(members[:count]).numpy(), axis=0)
        np.testing.assert_allclose(out.numpy(), exact, rtol=1e-6, atol=1e-9)
    merges.trimmed(out, members, [0.25] * 4, share=0.25)
    inner = np.sort(torch.stack(members).double().numpy(), axis=0)[1:3].mean(axis=0)
    np.testing.assert_allclose(out.numpy(), inner, rtol=1e-5, atol=1e-8)
    weights = [0.1, 0.2, 0.3, 0.4]
    merges.trimmed(out, members, weights, share=0.0)
    mean = np.einsum("k,kn->n", weights, torch.stack(members).double().numpy())
    np.testing.assert_allclose(out.numpy(), mean, rtol=1e-5, atol=1e-8)
    merges.median(out, members[:3], [0.2, 0.6, 0.2])  # one member has most of the weight
    assert torch.equal(out, members[1])
    merges.median(out, members, [0.0, 0.0, 1.0, 0.0])
    assert torch.equal(out, members[2])


def median_loss(even: Path, partitions: list[str]) -> float:
    """Return the loss on `reference` of the median, by numpy, of partitions with one unit each."""
    pool = json.loads((even / "pool.json").read_text())
    units = {unit["partition"]: unit for unit in pool["units"]}
    folders = [even / units[name]["folder"] for name in partitions]
    states = [load_file(path / "model.safetensors") for path in folders]
    model = AutoModelForCausalLM.from_pretrained(folders[0])
    middle = {
        name: torch.from_numpy(np.median(torch.stack([s[name] for s in states]).numpy(), axis=0))
        for name in states[0]
    }
    model.load_state_dict(middle, strict=False)
    return loss(model, even, "reference")


@pytest.mark.slow
def test_a_study_that_names_an_own_merge_scores_the_model_it_makes(folder: Path) -> None:
    even = folder / "work/even"
    study = ablate.load_study(even / "study.yaml", ["search.merge={method: 'my_merge:median'}"])
    members = ["asyncio-1", "email-1", "email-2"]
    row = score_study(study, ablate.Mixture.uniform(members))
    assert row.candidate.merge == "my_merge:median"
    assert row.losses["reference"] == pytest.approx(median_loss(even, members), rel=1e-5)
    ablate.search(ablate.load_study(even / "study.yaml", ["search.merge={method: linear}"]))


@pytest.mark.slow
def test_a_search_with_own_merges_scores_the_models_that_they_make(folder: Path) -> None:
    methods = "{method: 'my_merge:trimmed', options: {share: 0.25}}, {method: linear}"
    merge = f"{{method: 'my_merge:median', alternatives: [{methods}]}}"
    even = folder / "work/even"
    board = ablate.search(ablate.load_study(even / "study.yaml", [f"search.merge={merge}"]))
    assert board.merges == ("my_merge:median", "my_merge:trimmed(share=0.25)", "linear")
    rows = [row for row in table(even) if row["size"] == 3 and row["merge"] == "my_merge:median"]
    assert len(rows) == 4 and all(row["error"] is None for row in rows)
    for row in rows:
        loss_of = median_loss(even, row["partitions"])
        assert row["loss/reference"] == pytest.approx(loss_of, rel=1e-5)
    ablate.search(ablate.load_study(even / "study.yaml", ["search.merge={method: linear}"]))


def loss(model: torch.nn.Module, workspace: Path, domain: str) -> float:
    """Return nats per token of a Hugging Face model over the evaluated windows of a domain."""
    with pyarrow.memory_map(str(workspace / f"corpus/{domain}/evaluation.arrow")) as stream:
        tokens = pyarrow.ipc.open_file(stream).read_all().column(0).to_pylist()
    nats = count = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens), WINDOW):
            window = torch.tensor([tokens[start : start + WINDOW]])
            nats += float(model(input_ids=window, labels=window).loss) * (window.shape[1] - 1)
            count += window.shape[1] - 1
    return nats / count


@pytest.mark.slow
def test_the_python_way_prints_what_the_table_holds(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    even = folder / "work/even"
    study = ablate.load_study(even / "study.yaml")
    pool = ablate.train(study)
    importlib.import_module("explore").ask(pool, ablate.search(study, pool))
    out = capsys.readouterr().out
    rows = [r for r in table(even) if r["merge"] == "linear" or r["kind"] == "unit"]
    for size in (1, 2, 3):
        best = min((r for r in rows if r["size"] == size), key=lambda r: r["objective"])
        assert f"  {size}: {best['objective']:.4f}  {' + '.join(best['partitions'])}\n" in out
    even_pair = next(line for line in out.splitlines() if line.startswith("  0.5: "))
    best = min((r for r in rows if r["size"] == 2), key=lambda r: r["objective"])
    assert even_pair == f"  0.5: {best['objective']:.4f}"
    assert "what each partition does to the loss" in out and HOSTILE in out


@pytest.mark.slow
def test_merges_are_compared_on_the_trained_mixtures(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("compare").main(checked, SMALL)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 trained mixtures") and len(lines) == 5
    rows = table(checked / "work/even")
    three = [r for r in rows if r["size"] == 3]
    losses = [name for name in rows[0] if name.startswith("loss/")]
    for line, label in zip(lines[2:], ("linear", "median", "trimmed"), strict=True):
        assert line.split()[0] == label
    for kind, place in (("linear", 1), (None, 2)):
        same = [r for r in three if (r["merge"] == kind if kind else r["kind"] == "trained")]
        mean = np.mean([r[name] for r in same for name in losses])
        assert float(lines[2].split()[place]) == pytest.approx(mean, abs=6e-4)


@pytest.mark.slow
def test_the_walk_through_renders_every_cell(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = importlib.import_module("page")
    script = EXAMPLES / "walkthrough/walkthrough.py"
    even = checked / "work/even"
    html = page.render(script, {"FOLDER": str(even)})
    printed = capsys.readouterr().out
    source = script.read_text()
    code = [c.text for c in page.cells(source) if "[markdown]" not in c.mark]
    assert len(code) == source.count("\n# %%") - source.count("\n# %% [markdown]")
    text = unescape(html)
    for cell in code:
        assert f'<pre class="code">{cell}</pre>' in text
    assert html.count("<h2>") == source.count("\n# ## ")
    body = html.split("<script>")[0]  # before plotly's own
    assert body.count('class="figure"') == body.count("application/json") == 3
    for line in printed.splitlines():
        assert line in text
    assert HOSTILE in printed and HOSTILE not in html
    assert "Within a size, the merge ranks 8 trained mixtures" in " ".join(printed.split())
    assert "http-equiv" in html and "default-src 'none'" in html


def test_a_page_escapes_what_cells_show(tmp_path: Path, modules: None) -> None:
    page = importlib.import_module("page")
    script = tmp_path / "small.py"
    script.write_text(
        '# %% [markdown]\n# # A <b> & `*c*`\n#\n# *so* it is\n\n# %% tags=["parameters"]\nname = 1\n'
        "\n# %%\nimport plotly.graph_objects as go\nprint(name)\n'</pre><script>'\n\n# %%\n"
        "go.Figure(go.Scatter(text=['</script><b>']))\n"
    )
    html = page.render(script, {"name": "<i>"})
    assert "<h1>A &lt;b&gt; &amp; <code>*c*</code></h1>\n<p><em>so</em> it is</p>" in html
    assert '<pre class="output">&lt;i&gt;\n&lt;/pre&gt;&lt;script&gt;\n</pre>' in html
    data = html.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(data)["data"][0]["text"] == ["</script><b>"]


def called(*words: object, at: Path, path: Path | None = None) -> str:
    """Return what a process printed that a user would start so; `path` is on PYTHONPATH too."""
    paths = [str(ROOT), *([str(path)] if path else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=at,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_fields_of_study_runs_in_both_views(tmp_path: Path) -> None:
    write_texts(tmp_path)
    here = EXAMPLES / "fields_of_study"
    out = called(here / "run.py", tmp_path, *SMALL, at=tmp_path)
    assert [line[0] for line in out.splitlines() if line[:2] in ("1.", "2.", "3.")] == list("123")
    rows = table(tmp_path / "work/uneven")
    corpus = json.loads((tmp_path / "work/uneven/corpus/corpus.json").read_text())["partitions"]
    units = [tuple(r["partitions"]) for r in rows if r["kind"] == "unit"]
    assert {name: units.count((name,)) for name in FIELDS} == {
        name: info["tokens"] // 6_000 for name, info in corpus.items()
    }
    assert units.count(("email",)) > 1
    pairs = [r for r in rows if r["merge"] == "linear" and r["size"] == 2]
    assert len(pairs) == 3 + 2  # macro and micro differ where the email package is in
    even, uneven = (tmp_path / "work" / name / "models" for name in ("even", "uneven"))
    assert len(list(even.glob("seed-*"))) == 1
    assert "micro merge" in out and "macro merge" in out and "all subsets of 4" in out
    assert called(here / "tables.py", tmp_path, at=tmp_path) == out
    before = sorted(uneven.glob("*/*"))
    assert called(here / "run.py", tmp_path, *SMALL, at=tmp_path) == out
    assert sorted(uneven.glob("*/*")) == before


@pytest.mark.slow
def test_the_corpus_of_installed_packages_has_its_fields(tmp_path: Path) -> None:
    called(EXAMPLES / "fields_of_study/make_corpus.py", tmp_path, at=tmp_path)
    lines = gzip.decompress((tmp_path / "texts/fields.jsonl.gz").read_bytes()).splitlines()
    parts = {(row["field"], row["part"]) for row in map(json.loads, lines)}
    assert len(parts) == 10 and len({field for field, _ in parts}) == 6
    plan = json.loads(
        called("-c", "from ablate.cli import main; main()", "plan",
               EXAMPLES / "fields_of_study/study.yaml", f"workspace={tmp_path}/work",
               f"corpus.sources.0.path={tmp_path}/texts/fields.jsonl.gz",
               f"seed.sources.0.path={tmp_path}/texts/seed.jsonl.gz",
               f"evaluate.domains={{reference: {tmp_path}/texts/reference.jsonl.gz}}", "--json",
               at=tmp_path)
    )  # fmt: skip
    assert plan["mixtures"] == 175


@pytest.mark.slow
def test_own_merge_runs_from_the_command_line(tmp_path: Path) -> None:
    write_texts(tmp_path)
    (tmp_path / "own.yaml").write_text((EXAMPLES / "own_merge/study.yaml").read_text())
    ablate_cli = ("-c", "from ablate.cli import main; main()")
    out = called(
        *ablate_cli, "run", tmp_path / "own.yaml", *SMALL, "validate.mixtures=4",
        at=tmp_path, path=EXAMPLES / "own_merge",
    )  # fmt: skip
    assert "[my_merge:" in out or "[linear]" in out
    merges = {row["merge"] for row in table(tmp_path / "work/own-merge") if row["size"] == 3}
    assert {"my_merge:median", "my_merge:trimmed(share=0.25)", "linear"} <= merges


@pytest.mark.slow
@pytest.mark.parametrize("script", ["python_api/explore.py", "walkthrough/walkthrough.py"])
def test_scripts_run_on_a_study_of_their_own(tmp_path: Path, script: str) -> None:
    out = called(EXAMPLES / script, tmp_path / "study", at=tmp_path)
    assert "Within a size, the merge ranks" in out
    assert (tmp_path / "study/work/report.html").exists()
    assert (tmp_path / "study/walkthrough.html").exists() == (script[0] == "w")
