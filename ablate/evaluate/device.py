"""Where an evaluator runs, and in which precision.

bfloat16 is used where matrix units have it: CUDA devices of compute capability 8.0 on, CPUs with
AVX512-BF16 or AMX-BF16. Elsewhere `precision: bf16` means float32: emulation would be slower and
less exact. The losses of both agree to 0.1 %.
"""

from __future__ import annotations

import torch


def pick_device(gpus: float) -> torch.device:
    """Return the first visible CUDA device when a share of one is reserved, else the CPU."""
    if gpus > 0 and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def evaluation_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the weights for `precision` ("fp32" or "bf16") on `device`."""
    return torch.bfloat16 if precision == "bf16" and has_bfloat16(device) else torch.float32


def lacks_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps for later, so that a smaller batch finds it whole."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
