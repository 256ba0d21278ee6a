"""What is shown has no commands to a terminal and no secrets; what is kept has no secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ablate.errors import RunError, StudyError
from ablate.harmless import is_name, visible, without_secrets
from ablate.study import Study, load_study

SECRET = "Zq8yVt3nWkJ5"
ESCAPES = "\x1b]0;owned\x07\x1b[2J"
HOSTILE = [
    ESCAPES, "a\nb", "a\rb", "a\tb", "\u202egnp.exe", "\u2066x", "\x9b31m", "\ud800", "\x00",
    "a\u2028b", "x" * 10_000, "",
]  # fmt: skip
HARMLESS = [
    "<script>alert(1)</script>", "</script>", '"quoted"', "[bold red]x[/]", "law, math", "a|b",
    "../../etc/passwd", "数学", "ریاضی\u200cها", "👩\u200d🔬", "{{7*7}}", "=1+1", "x" * 200,
]  # fmt: skip
TREE = {
    "name": "n",
    "workspace": "work",
    "corpus": {"sources": [{"path": "a.jsonl", "partition": "a"}]},
    "tokenizer": {"train": {"vocab_size": 300}},
    "model": {"preset": "tiny"},
    "seed": {"sources": [{"path": "s.jsonl"}]},
}


def written(folder: Path, **changes: object) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**TREE, **changes}, allow_unicode=True))
    return file


def source(name: str) -> dict[str, object]:
    return {"sources": [{"path": "a.jsonl", "partition": name}]}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("place", ["name", "partition", "domain", "units", "groups", "objectives"])
def test_names_that_cannot_be_seen_are_refused_in_one_visible_line(name: str, place: str) -> None:
    tree: dict[str, object] = {
        "name": {"name": name},
        "partition": {"corpus": source(name)},
        "domain": {"evaluate": {"domains": {name: "d.txt"}}},
        "units": {"units": {name: ["folder"]}},
        "groups": {"search": {"space": {"groups": {name: ["a"]}}}},
        "objectives": {"search": {"objectives": {name: {"mean": "all"}}}},
    }[place]
    with pytest.raises(ValueError) as raised:
        Study.model_validate({**TREE, **tree})
    line = str(StudyError(str(raised.value)))
    assert line == visible(line) and "\n" not in line and len(line) < 5000
    assert not is_name(name)


@pytest.mark.parametrize("name", HARMLESS, ids=ascii)
def test_any_other_name_is_taken_as_it_is(name: str) -> None:
    study = Study.model_validate({**TREE, "corpus": source(name)})
    assert study.corpus.sources[0].partition == name


def test_text_of_others_shows_its_commands() -> None:
    assert visible(f"{ESCAPES}\u202eé\nok\t") == "\\x1b]0;owned\\x07\\x1b[2J\\u202eé\nok\t"
    assert "\x1b" not in str(RunError(ESCAPES)) and "\x1b" not in str(StudyError(ESCAPES))


@pytest.mark.parametrize(
    "text",
    [
        f"s3://key:{SECRET}@bucket/x", f"s3://key:p@{SECRET}@bucket/x", f"https://{SECRET}@host/x", f"https://h/x?token={SECRET}",
        f"https://h/x?a=1&X-Amz-Signature={SECRET}", f"https://h/?api_key={SECRET}&b=2",
        "hf_" + SECRET * 2,
    ],
)  # fmt: skip
def test_secrets_of_addresses_are_hidden_everywhere(text: str, tmp_path: Path) -> None:
    assert SECRET not in without_secrets(text, {}) and SECRET not in str(StudyError(f"got {text}"))
    for changes in ({"workspace": text}, {"corpus": source("a") | {"unit_tokens": text}},
                    {"evaluate": {"domains": {"d": text}}}, {"model": {"path": text}},
                    {"units": {"u": [text]}}, {text: 1}):  # fmt: skip
        with pytest.raises(StudyError) as raised:
            load_study(written(tmp_path, **changes))
        assert SECRET not in str(raised.value)
    with pytest.raises(StudyError) as raised:
        load_study(written(tmp_path), [f"workspace={text}"])
    assert SECRET not in str(raised.value)


def test_plain_addresses_and_names_stay() -> None:
    for text in (
        "s3://bucket/x?versionId=3",
        "hub/model:en@main",
        "a=b&c",
        "mail me@x.org",
        "hf_x",
    ):
        assert without_secrets(text, {}) == text


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"])
def test_secrets_of_the_environment_are_hidden(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SECRET)
    assert SECRET not in str(StudyError(f"the hub answers {SECRET}"))
    with pytest.raises(StudyError, match="password or token") as raised:
        load_study(written(tmp_path, name=f"with {SECRET}"))
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("secret", [f"{SECRET}\nline", f"{SECRET}'\"\\é😀", f"{SECRET}\x1b\udcff"])
def test_secrets_are_hidden_as_errors_quote_them(secret: str) -> None:
    environment = {"RAY_AUTH_TOKEN": secret}
    for text in (
        secret, repr(secret), repr([f"it's {secret}"]), repr(f"\"it's\" {secret}"), json.dumps(secret), ascii(secret),
        json.dumps(secret, ensure_ascii=False), visible(secret), " ".join(secret.split()),
        repr(secret.encode(errors="surrogateescape")),
    ):  # fmt: skip
        assert SECRET not in without_secrets(f"got {text} there", environment), text


def test_a_bug_s_traceback_has_neither(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ablate import cli, study\n"
        f"def fail(*_): raise KeyError('{SECRET}' + chr(27))\n"
        "cli.load_study = fail\nsys.argv = ['ablate', 'plan', 'x.yaml']\ncli.main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120,
        env={"HF_TOKEN": SECRET, "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert found.returncode == 1 and "KeyError" in found.stderr
    # The source line that raised is shown; the value that was raised is not.
    last = found.stderr.strip().splitlines()[-1]
    assert SECRET not in found.stderr and "\x1b" not in last and "***" in last
