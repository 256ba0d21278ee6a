"""Files of token likelihoods: one model on one domain, so that it need not run there again.

`<root>/likelihoods/<model>/<domain>.safetensors`: one float32 vector `nats`, the negative
log-likelihood of every scored token in window order, under a header that is wholly determined by
the two fingerprints, the schema and the vector. Reading makes that header again and compares.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np

from ablate.progress import note
from ablate.workspace import SCHEMA_VERSION, write_atomic

FOLDER = "likelihoods"
LITTLE_FLOAT = np.dtype("<f4")


def token_nats_path(root: Path, model: str, domain: str) -> Path:
    """Return where the likelihoods of a model on a domain lie, both given by fingerprint.

    Raises ValueError where a fingerprint is not lower-case hex digits.
    """
    for mark in (model, domain):
        if not re.fullmatch("[0-9a-f]{1,64}", mark):
            raise ValueError(f"a fingerprint must be lower-case hex digits, got {mark!r}")
    return root / FOLDER / model / f"{domain}.safetensors"


def write_token_nats(root: Path, model: str, domain: str, nats: np.ndarray) -> Path:
    """Write the nats of scored tokens, [tokens], as float32 and return the file's path.

    Raises ValueError where they are no vector of finite numbers of at least 0.
    """
    path = token_nats_path(root, model, domain)
    values = np.ascontiguousarray(nats, dtype=LITTLE_FLOAT)
    if values.ndim != 1 or not _sound(values):
        raise ValueError(
            f"nats must be a vector of finite numbers of at least 0, got shape {values.shape}"
        )
    data = values.tobytes()
    write_atomic(path, _header(model, domain, data) + data)
    return path


def read_token_nats(root: Path, model: str, domain: str, tokens: int) -> np.ndarray | None:
    """Return the nats of a model on a domain of `tokens` scored tokens, float32 [tokens].

    None when there is no such file, and, after a note, when it cannot be read, is damaged, or is
    of another model, domain, number of tokens or schema.
    """
    path = token_nats_path(root, model, domain)
    # The length is known beforehand: nothing that a file claims decides how much is read.
    start = len(_header(model, domain, bytes(LITTLE_FLOAT.itemsize * tokens)))
    size = start + LITTLE_FLOAT.itemsize * tokens
    try:
        with path.open("rb") as stream:
            raw = stream.read(size + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        note(f"likelihoods are made again: {path} cannot be read ({error.strerror})")
        return None
    values = np.frombuffer(raw[start:size], dtype=LITTLE_FLOAT) if len(raw) == size else None
    if values is None or raw[:start] != _header(model, domain, raw[start:]) or not _sound(values):
        note(
            f"likelihoods are made again: {path} is damaged, or is not of this model, domain, "
            f"schema and {tokens} tokens"
        )
        return None
    return values.astype(np.float32)


def _sound(values: np.ndarray) -> bool:
    return bool(values.size and np.isfinite(values).all() and values.min() >= 0)


def _header(model: str, domain: str, data: bytes) -> bytes:
    """Return what stands before `data` in a safetensors file, a multiple of eight bytes."""
    tokens = len(data) // LITTLE_FLOAT.itemsize
    header = {
        "__metadata__": {
            "schema_version": str(SCHEMA_VERSION),
            "model": model,
            "domain": domain,
            "tokens": str(tokens),
            "sha256": hashlib.sha256(data).hexdigest(),
        },
        "nats": {"dtype": "F32", "shape": [tokens], "data_offsets": [0, len(data)]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
