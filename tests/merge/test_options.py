"""Names, options and defaults of merge methods."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import StudyError
from ablate.merge import METHODS, check_options, code_mark, merge_method, prepare_options
from ablate.merge.linear import linear


@pytest.mark.parametrize("name", sorted(METHODS))
def test_defaults_are_the_functions_own_and_allowed(name: str) -> None:
    method = METHODS[name]
    parameters = inspect.signature(method.function).parameters
    for key, option in method.options.items():
        assert parameters[key].default == option.default
        assert type(parameters[key].default) is type(option.default)
    check_options(name, {key: option.default for key, option in method.options.items()})
    needed = {key for key, p in parameters.items() if p.default is inspect.Parameter.empty}
    facts = {
        "seed": method.needs_seed,
        "layout": method.needs_layout,
        "statistics": method.statistics is not None,
    }
    assert needed == {"out", "members", "weights", *(key for key, fact in facts.items() if fact)}


def test_prepared_things_depend_on_the_named_options() -> None:
    assert prepare_options(METHODS["ties"], {"scale": 2.0}) == {"density": 0.2}
    assert prepare_options(METHODS["dare"], {"rng_seed": 3}) == {"density": 0.5, "rng_seed": 3}
    assert prepare_options(METHODS["fisher"]) == {}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ties", {"densty": 0.2}, "did you mean 'density'"),
        ("ties", {"density": 0.0}, "ties.density must be a number from 1e-06 to 1, got 0.0"),
        ("ties", {"density": 1.5}, "must be a number from"),
        ("ties", {"density": float("nan")}, "must be a number from"),
        ("ties", {"density": True}, "must be a number from"),
        ("ties", {"density": "0.2"}, "must be a number from"),
        ("dare", {"rng_seed": 0.5}, "must be a whole number"),
        ("dare", {"elect": 1}, "must be true or false"),
        ("linear", {"density": 0.2}, "linear has no options"),
        ("tise", {}, "did you mean 'ties'"),
    ],
)
def test_wrong_options_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        check_options(name, options)
    assert "\n" not in str(caught.value)


def test_a_users_own_function_takes_any_option() -> None:
    method = merge_method("ablate.merge.linear:linear")
    assert inspect.unwrap(method.function) is linear
    assert not method.needs_seed and method.statistics is None and not method.options
    check_options("ablate.merge.linear:linear", {"anything": 1.0})


def test_the_code_of_a_users_own_function_has_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_mark("linear") is None
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, body in (("merge_one", "return 1"), ("merge_two", "return 1"), ("merge_3", "pass")):
        (tmp_path / f"{name}.py").write_text(
            f"def f(out, members, weights, *, threads):\n    {body}\n"
        )
    one, same, other = (code_mark(f"{m}:f") for m in ("merge_one", "merge_two", "merge_3"))
    assert one == same != other
