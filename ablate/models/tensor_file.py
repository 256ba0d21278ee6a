"""safetensors files, read with every number checked and written in one pass.

Source: the format page of huggingface/safetensors: 8 bytes with the header's length, a JSON
header, then the tensors' bytes without holes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.errors import CheckpointError

MAX_HEADER_BYTES = 32 << 20
PIECE = 1 << 17  # elements read and checked at once, while they are in the cache
FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
ITEM_BYTES = {
    **FLOAT_BYTES,
    **{"F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8},
}
DTYPE_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies in a file: `length` bytes from byte `start` of `path`."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name; no tensor data is read.

    Raises CheckpointError when the file is missing, cut short, or its header is not sound.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise _broken(path, "it is no plain file")
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _broken(path, f"it has {size} bytes and claims a header of {length}")
            raw = stream.read(length)
    except OSError as error:
        raise CheckpointError(
            f"a checkpoint's weights must be readable: {path} ({error.strerror}); name a folder "
            "with model.safetensors"
        ) from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _broken(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    tensors = {name: _stored(path, name, item, 8 + length) for name, item in header.items()}
    _require_no_holes(path, tensors.values(), 8 + length, size)
    return tensors


def _broken(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"weights must be a whole safetensors file: {path} is cut short or altered ({reason}); "
        "copy or train it again"
    )


def _stored(path: Path, name: str, item: Any, base: int) -> StoredTensor:
    sound = isinstance(item, dict)
    shape, offsets = (
        _counts(item.get(key) if sound else None) for key in ("shape", "data_offsets")
    )
    if shape is None or offsets is None or len(offsets) != 2:
        raise _broken(path, f"tensor '{name}' has no sound shape and offsets")
    if not isinstance(item.get("dtype"), str) or item["dtype"] not in ITEM_BYTES:
        raise CheckpointError(
            f"weights must be F32, BF16 or F16: tensor '{name}' of {path} is {item.get('dtype')}; "
            "use the checkpoint that is not quantized"
        )
    count = 1
    for side in shape:
        count *= side
    start, stop = offsets
    if count * ITEM_BYTES[item["dtype"]] != stop - start:
        raise _broken(path, f"tensor '{name}' of shape {shape} has {stop - start} bytes")
    return StoredTensor(
        name=name,
        path=path,
        dtype=item["dtype"],
        shape=tuple(shape),
        start=base + start,
        length=stop - start,
    )


def _counts(value: Any) -> list[int] | None:
    """Return a list of at most 16 counts, None when `value` is none."""
    if not isinstance(value, list) or len(value) > 16:
        return None
    return value if all(type(item) is int and 0 <= item < 2**53 for item in value) else None


def _require_no_holes(path: Path, tensors: Iterable[StoredTensor], start: int, size: int) -> None:
    position = start
    for tensor in sorted(tensors, key=lambda item: (item.start, item.length)):
        if tensor.start != position:
            raise _broken(path, f"tensor '{tensor.name}' overlaps another or leaves a hole")
        position += tensor.length
    if position != size:
        raise _broken(path, f"its header describes {position} bytes, it has {size}")


def read_into(tensor: StoredTensor, out: np.ndarray) -> None:
    """Write a float tensor's values into `out`, contiguous float32 of as many elements.

    Raises CheckpointError when it is no float tensor, is cut short, or holds NaN or infinity.
    """
    if tensor.dtype not in FLOAT_BYTES:
        raise CheckpointError(
            f"weights must be F32, BF16 or F16: tensor '{tensor.name}' of {tensor.path} is "
            f"{tensor.dtype}; use the checkpoint that is not quantized"
        )
    scratch = np.empty(PIECE if tensor.dtype != "F32" else 0, dtype=np.uint16)
    with tensor.path.open("rb", buffering=0) as stream:
        stream.seek(tensor.start)
        for start in range(0, out.size, PIECE):
            values = out[start : start + PIECE]
            raw = values if tensor.dtype == "F32" else scratch[: values.size]
            if stream.readinto(raw.view(np.uint8).data) != raw.nbytes:
                raise _broken(tensor.path, f"tensor '{tensor.name}' ends early")
            if tensor.dtype == "BF16":
                bits = values.view(np.uint32)
                np.left_shift(raw, np.uint32(16), out=bits, dtype=np.uint32)
            elif tensor.dtype == "F16":
                values[:] = raw.view(np.float16)
            if not np.isfinite(values).all():
                raise CheckpointError(
                    f"weights must be finite: tensor '{tensor.name}' of {tensor.path} holds NaN "
                    "or infinity; its training diverged, train it again with a lower rate"
                )


def read_bytes(tensor: StoredTensor) -> bytes:
    """Return a tensor's raw bytes."""
    with tensor.path.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.length)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write a safetensors file of CPU tensors and return the SHA-256 of its bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    # Wide items first, as the reference writer does, so that every tensor is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        stop = position + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for piece in (len(text).to_bytes(8, "little"), text):
            digest.update(piece)
            stream.write(piece)
        for name in order:
            values = tensors[name].detach().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(values.data)
            stream.write(values.data)
    return digest.hexdigest()
