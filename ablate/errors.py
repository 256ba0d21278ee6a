"""The errors that `ablate` raises on purpose.

AblateError
├── UserError        the user can mend it: exit code 2, one line, no traceback
│   ├── StudyError       a study or cluster file, an override, an argument
│   ├── CorpusError      source documents, partitions, the tokenizer
│   ├── CheckpointError  a model folder: another layout, truncated, not finite
│   └── WorkspaceError   a state file: altered, of another schema, locked
└── RunError         a machine or a run failed after its retries: exit code 1
    └── OwnCodeError     a function of the user's own raised: it may pass, and is tried again

Messages of `UserError` read: *rule* must hold for *place*, got *value*; *remedy*.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ablate.harmless import visible, without_secrets

MOST_CHARACTERS = 4000
"""Of a line for the user; from the middle of a longer one (a name of megabytes) text is left out."""


class AblateError(Exception):
    """Root of every error that the package raises on purpose; its message has no secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(without_secrets(message)))


class UserError(AblateError):
    """Something in the user's hands; the message is one line and says the remedy."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        half = MOST_CHARACTERS // 2
        super().__init__(line if len(line) <= 2 * half else f"{line[:half]} … {line[-half:]}")


class StudyError(UserError):
    """A study file, a cluster file, an override or an argument is wrong."""


class CorpusError(UserError):
    """Source documents, partitions or the tokenizer cannot be used."""


class CheckpointError(UserError):
    """A model folder is incomplete, altered, not finite or of another architecture."""


class WorkspaceError(UserError):
    """A state file of the workspace is altered, of another schema, or in use."""


class RunError(AblateError):
    """A training run or a cluster operation failed after its retries."""


class OwnCodeError(RunError):
    """A function of the user's own raised: it may not do so when it is called again."""


def close_to(word: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the closest known word, else nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'? ` for the closest known word, else the list of known ones."""
    names = sorted(known)
    if close := close_to(word, names):
        return close
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known: {shown}" if names else "none is known"
