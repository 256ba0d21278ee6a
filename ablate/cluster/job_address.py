"""Where a job server is, and who else can reach it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ablate.errors import StudyError
from ablate.settings import cut

VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
AUTH_MODE = "RAY_AUTH_MODE"


@dataclass(frozen=True, kw_only=True)
class JobAddress:
    """A job server's http:// or https:// address; as text, without a password in it."""

    url: str

    def __str__(self) -> str:
        parts = self._parts
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def is_loopback(self) -> bool:
        """Return whether it is this machine's own, which others cannot reach."""
        host = self._parts.hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def is_open(self) -> bool:
        """Return whether it is plain http beyond this machine without Ray's token mode."""
        return not (self.is_loopback or token_mode() or self._parts.scheme == "https")


def token_mode() -> bool:
    """Return whether this process shows Ray a token."""
    return os.environ.get(AUTH_MODE, "").lower() == "token"


def job_address(given: str | None, environment: Mapping[str, str] = os.environ) -> JobAddress:
    """Return the address given, else that of Ray's environment variables.

    `host:port` means http. Raises StudyError when there is none, or it is no http address.
    """
    named = (environment[name] for name in VARIABLES if environment.get(name))
    text = given or next(named, None)
    if text is None:
        raise StudyError(
            "--address must name a Ray job server, got none; e.g. --address http://127.0.0.1:8265"
        )
    url = text if "://" in text else f"http://{text}"
    if not _is_http(url) or text in ("auto", "local"):
        raise StudyError(
            f"--address must be the http:// or https:// address of a Ray dashboard, got "
            f"{cut(text)}; e.g. http://127.0.0.1:8265"
        )
    return JobAddress(url=url.rstrip("/"))


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@contextmanager
def only_address(address: JobAddress) -> Iterator[None]:
    """Have Ray's client use this address: its own variables would win over what it is given."""
    name = VARIABLES[0]
    before = os.environ.get(name)
    os.environ[name] = address.url
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
