"""Typed YAML files: strict models, `key=value` overrides, one-line errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ablate.errors import StudyError, did_you_mean
from ablate.harmless import NAME_LENGTH, is_name, without_secrets

NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d+)?")
UNION_TAG = re.compile(
    r"(literal|tuple|list|dict|function-[a-z]+|nullable|constrained-[a-z]+)\[.*\]"
)
MAX_FILE_BYTES = 4 << 20


def _seen(value: str) -> str:
    if not is_name(value):
        raise ValueError(
            f"a name must have 1 to {NAME_LENGTH:,} characters that can be seen (no line ends, "
            f"control characters or marks of direction), got {shortened(value)}"
        )
    return value


def cut(text: str, most: int = 100) -> str:
    """Return how a key, a path or an error reads in a message: cut to its length, no secrets."""
    text = without_secrets(text)
    return text if len(text) <= most else text[: most - 3] + "..."


def shortened(value: Any) -> str:
    """Return how a value reads in a message: at most 60 characters, no secrets."""
    return cut(str(value) if isinstance(value, date) else repr(value), 60)


WORDS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must hold keys and values",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number below 9.2e18",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "model_type": "must hold keys and values",
    "string_type": "must be text (in quotes where YAML reads something else)",
    "tuple_type": "must be a list",
}
"""What pydantic says in Python's terms, by its type of error."""


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


def parse_number(value: Any) -> Any:
    """Turn text such as `3e-4` or `20_000_000`, which YAML reads as text, into a number."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value.replace("_", ""))
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


Int = Annotated[int, BeforeValidator(parse_number)]
Float = Annotated[float, BeforeValidator(parse_number)]


def _plain(value: Any) -> Any:
    """Return a tree of JSON values; raise ValueError for NaN, infinity and what JSON has not."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"must hold plain values, got {error}") from error
    except ValueError as error:
        raise ValueError(f"must hold finite numbers, got {shortened(value)}") from error
    return value


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
Name = Annotated[str, AfterValidator(_seen)]
SettingsT = TypeVar("SettingsT", bound=Settings)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and aliases (which can expand without bound)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str | int | float | bool | type(None)):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: keys must be plain")
            if key in seen:
                raise yaml.YAMLError(
                    f"line {key_node.start_mark.line + 1}: {shortened(key)} given twice"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the value of YAML text without tags, aliases or a key given twice.

    Raises yaml.YAMLError, ValueError or RecursionError.
    """
    return yaml.load(text, Loader=_UniqueKeyLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file; raise StudyError with file and line when it is none."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no file" if path.exists() else "nothing"
        raise StudyError(f"a YAML file must exist at {path}, got {got}; see `ablate init DIR`")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise StudyError(f"{path} must be a YAML file of at most 4 MiB; is it a data file?")
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(
            f"{path} must be a file that can be read, got: {error.strerror}; name another"
        ) from error
    except UnicodeDecodeError as error:
        byte, line = error.object[error.start], error.object[: error.start].count(b"\n") + 1
        raise StudyError(
            f"{path} must be UTF-8 text, got byte 0x{byte:02x} in line {line}; save it as UTF-8"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyError(f"{path} must be YAML: {_yaml_words(error)}; mend that line") from error
    if not isinstance(value, dict):
        raise StudyError(
            f"{path} must hold keys and values, got {_kind_words(value)}; see `ablate init DIR`"
        )
    return value


def _yaml_words(error: Exception) -> str:
    """Return what is wrong and in which line, without a copy of the text around it."""
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return str(error)
    said = " ".join(str(part) for part in (error.context, error.problem) if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"


def _kind_words(value: Any) -> str:
    if value is None:
        return "an empty file"
    return "a list" if isinstance(value, list) else f"the plain value {shortened(value)}"


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return `tree` with `a.b.0.c=value` tokens set; values are read as YAML."""
    for token in overrides:
        key, separator, text = token.partition("=")
        if not separator or not key:
            raise StudyError(
                f"overrides must read key=value, got {shortened(token)}; e.g. train.rng_seed=1"
            )
        try:
            value = parse_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise StudyError(
                f"override {cut(key)} must be YAML, got {shortened(text)}: "
                f"{cut(_yaml_words(error))}; put it in quotes"
            ) from error
        _set(tree, key.split("."), value, token)
    return tree


def _set(node: Any, path: list[str], value: Any, token: str) -> None:
    head, *rest = path
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise StudyError(
                f"override {shortened(token)}: {shortened(head)} must be an index below "
                f"{len(node)}; count from 0"
            )
        if rest:
            _set(node[int(head)], rest, value, token)
        else:
            node[int(head)] = value
    elif isinstance(node, dict):
        if rest:
            if node.get(head) is None:
                node[head] = {}
            _set(node[head], rest, value, token)
        else:
            node[head] = value
    else:
        raise StudyError(
            f"override {shortened(token)}: nothing can stand below a plain value at "
            f"{shortened(head)}; correct the key"
        )


def build(model: type[SettingsT], tree: dict[str, Any], where: str) -> SettingsT:
    """Return `tree` as `model`; raise StudyError that names every offending key in one line."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(model, item) for item in error.errors()]
        shown = "; ".join(dict.fromkeys(problems[:4]))
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise StudyError(f"{where}: {shown}{more}; see `ablate schema`") from error


def _problem(model: type[BaseModel], item: Any) -> str:
    place = ".".join(cut(str(part)) for part in item["loc"] if not _is_union_tag(part))
    got = shortened(item.get("input"))
    if item["type"] == "extra_forbidden":
        known = _keys_at(model, item["loc"][:-1])
        key = str(item["loc"][-1])
        close = did_you_mean(key[:NAME_LENGTH], known)
        return f"{place} must be a known key, got {shortened(key)}, {close}"
    if item["type"] == "missing":
        return f"{place} must be given"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = WORDS.get(item["type"], message[0].lower() + message[1:])
    message = message.replace("should be", "must be", 1).replace("should have", "must have", 1)
    if item["type"] == "value_error" and not message.startswith("must "):
        return f"{place}: {message}" if place else message
    return f"{place} {message}" + ("" if "got " in message else f", got {got}")


def _is_union_tag(part: Any) -> bool:
    """Return whether a step of an error's place names a branch of a union, not a key."""
    return isinstance(part, str) and UNION_TAG.fullmatch(part) is not None


def _keys_at(model: Any, path: Iterable[Any]) -> list[str]:
    """Return the keys known at a place, walking through lists, optionals and unions."""
    models = _models(model)
    for part in path:
        if isinstance(part, int) or _is_union_tag(part):
            continue
        found = [keys[part].annotation for m in models if part in (keys := _fields(m))]
        # What is no key of theirs is one of a table of them.
        models = [inner for annotation in found for inner in _models(annotation)] or models
    return sorted({key for m in models for key in _fields(m)})


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return fields by their keys in files: the alias, where Python has the word itself."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for argument in get_args(annotation) for inner in _models(argument)]


def texts_of(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in plain values, keys too, with its dotted place."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield key, name
            yield from texts_of(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from texts_of(item, f"{key}.{place}")
