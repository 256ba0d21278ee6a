"""Mixtures as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.mixture_text import parse_mixture

UNITS = {"law": 1, "math": 3, "news, local": 2, "news": 1, "a b": 1}


def parse(text: str, weighting: str = "micro") -> Mixture:
    return parse_mixture(text, known=UNITS, units=UNITS, weighting=weighting)


def test_members_are_weighted_by_units_or_evenly() -> None:
    assert dict(parse("law, math").weights) == {"law": 0.25, "math": 0.75}
    assert dict(parse("math,law", "macro").weights) == {"law": 0.5, "math": 0.5}


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("news, local", {"news, local"}),
        ("news, local, law", {"news, local", "law"}),
        ("law,news, local", {"news, local", "law"}),
        ('"news, local", news', {"news, local", "news"}),
        ('"news",law', {"news", "law"}),
        (" a b , law ", {"a b", "law"}),
    ],
)
def test_names_with_commas_are_found(text: str, members: set[str]) -> None:
    assert set(parse(text).partitions) == members


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "leave no name empty"),
        ("law,", "leave no name empty"),
        ("law,,math", "leave no name empty"),
        ("law, maths", "did you mean 'math'"),
        ("law law", "did you mean 'law'"),
        ("law, law", "'law' twice"),
        ('"law, math', "must close"),
        ("nowhere.json", "No such file"),
    ],
)
def test_what_is_no_mixture_gets_one_line(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.json", "{", "must be JSON"),
        ("w.yaml", "a: [", "must be YAML"),
        ("w.json", "[1, 2]", "map partitions to numbers"),
        ("w.json", '{"law": "much"}', "map partitions to numbers"),
        ("w.json", '{"law": true}', "map partitions to numbers"),
        ("w.json", '{"law": -1}', "finite and >= 0"),
        ("w.json", '{"law": NaN}', "finite and >= 0"),
        ("w.json", '{"law": 0}', "positive weight"),
        ("w.json", "{}", "positive weight"),
        ("w.json", '{"law": 1, "law": 2}', "'law' given twice"),
        ("w.yaml", "law: 1\nlaw: 2", "'law' given twice"),
        ("w.json", '{"law": 1e308, "math": 1e308}', "at most 1e\\+15"),
        ("w.json", '{"law": ' + "9" * 400 + "}", "at most 1e\\+15"),
        ("w.json", "[" * 100_000, "must be JSON"),
        ("w.yaml", "laws: 1", "did you mean 'law'"),
        ("w.json", "\x00\udcff", "must be JSON"),
    ],
)
def test_files_of_weights_are_checked(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StudyError, match=message) as caught:
        parse(str(path))
    assert "\n" not in str(caught.value)


def test_weights_of_a_file_are_normalized(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("law: 3\nmath: 1\nnews: 0\n")
    assert dict(parse(str(path)).weights) == {"law": 0.75, "math": 0.25}
