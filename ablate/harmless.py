"""Texts of others, made harmless where they are shown: no command to a terminal, no secret."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

NAME_LENGTH = 1000
HIDDEN = "***"
# Terminals obey control characters; marks of direction and line ends of Unicode show a text as
# another one; half a character cannot be written at all.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
)
_CONTROL = re.compile(f"[{_UNSEEN}]")
_NOT_OF_NAMES = re.compile(f"[{_UNSEEN}\t\n]")
# Counts are bounded: a long text without end is read once, not once from each of its places.
_PASSWORD_IN_URL = re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]{0,30}://)[^\s/'\"]{1,2000}@")
_SECRET_KEYS = "token|secret|password|passwd|signature|credentials?|api[_-]?key|access[_-]?key|sig"
_SECRET_IN_QUERY = re.compile(rf"(?i)([?&;][\w-]{{0,60}}(?:{_SECRET_KEYS})=)[^\s&;'\"]+")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_SECRET_VARIABLE = re.compile(r"(?i).*(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY)")
_LEAST_SECRET = 8


def visible(text: str) -> str:
    """Return a text with control characters and marks of direction spelled out, e.g. `\\x1b`.

    Line ends and tabs stay.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a text with `***` for what is secret in it.

    That is user and password in a URL, the value of `?token=` and its like, a token of the hub,
    and the value of every environment variable that is named like a secret (HF_TOKEN,
    WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, ...), as it is or as Python and JSON quote it.
    """
    for name, value in environment.items():
        if len(value) >= _LEAST_SECRET and _SECRET_VARIABLE.fullmatch(name):
            for form in _forms(value):
                text = text.replace(form, HIDDEN)
    text = _PASSWORD_IN_URL.sub(rf"\1{HIDDEN}@", text)
    text = _SECRET_IN_QUERY.sub(rf"\1{HIDDEN}", text)
    return _HUB_TOKEN.sub(HIDDEN, text)


def _forms(value: str) -> list[str]:
    """Return how a secret may stand in a text, longest first: errors quote what they refuse."""
    if value.isascii() and value.isprintable() and not set(value) & set("\\'\""):
        return [value]
    quoted = {
        value,
        " ".join(value.split()),
        # With both quotation marks in a text, Python escapes the single one.
        *(
            quote(text)[1:end]
            for quote in (repr, ascii)
            for text, end in ((value, -1), (value + "'\"", -4))
        ),
        repr(os.fsencode(value))[2:-1] if _is_encodable(value) else value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        visible(value),
        value.encode("unicode_escape").decode(),
    }
    return sorted((form for form in quoted if len(form) >= _LEAST_SECRET), key=len, reverse=True)


def _is_encodable(value: str) -> bool:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def is_name(text: str) -> bool:
    """Return whether a text may name a partition, a domain or a study.

    It has 1 to 1,000 characters, all of which can be seen: no line end, control character, mark of
    direction or half a character.
    """
    return 0 < len(text) <= NAME_LENGTH and not _NOT_OF_NAMES.search(text)
