"""Merging alone: least CPU time of several repeats, same weights.

mergekit gets its best case: only the merge is timed (plan, execute, copy into a live model), files
are in the page cache, members and result are bfloat16. ablate's members are float32 in memory, so
it reads twice the bytes. Both results are compared with a float64 sum before times are: ablate's,
as bfloat16, must be the nearest one, half a step away at most.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.merge import MergeInputs, merge_method, run_method
from ablate.models.layout import Layout, flatten, layout_of
from bench._numbers import measured

HERE = Path(__file__).parent
REPEATS = 5
MEMORY_AIM, DISK_AIM = 8.0, 10.0
ULP = 2.0**-7  # the largest bfloat16 step, relative
NEAREST = 0.5 + 2.0**-10  # of a step, with what float32 leaves


def run(python: str) -> list[dict[str, Any]]:
    """Return the ratios for about 15M and 130M parameters, four and eight members."""
    numbers = []
    for name, config in (("15m", llama(384, 6, 8192)), ("130m", llama(768, 12, 50_304))):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            layout, vectors = _write_models(root, config)
            for count in (4, 8):
                numbers += _compare(
                    f"mergekit/{name}/{count}", root, layout, vectors[:count], python
                )
    return numbers


def llama(width: int, layers: int, vocabulary: int) -> LlamaConfig:
    """Return a small Llama's shape, input and output embeddings tied."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8 * width // 3 // 64 * 64,
        num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=width // 64, tie_word_embeddings=True,
    )  # fmt: skip


def _write_models(root: Path, config: Any) -> tuple[Layout, list[torch.Tensor]]:
    """Write a seed and eight members close to it in bfloat16; return them as float32 vectors."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(root / "seed")
    layout, vectors = layout_of(model.float()), []
    start = flatten(model, layout)
    for number in range(8):
        generator = torch.Generator().manual_seed(number + 1)
        with torch.no_grad():
            for entry in layout.entries:
                step = 0.003 * torch.randn(entry.shape, generator=generator)
                size = step.numel()
                value = start[entry.offset : entry.offset + size].view(entry.shape) + step
                model.get_parameter(entry.name).copy_(value)
        half = model.to(torch.bfloat16)
        half.save_pretrained(root / f"m{number}")
        model = half.float()
        vectors.append(flatten(model, layout))
    return layout, vectors


def _compare(
    name: str, root: Path, layout: Layout, vectors: list[torch.Tensor], python: str
) -> list[dict[str, Any]]:
    count = len(vectors)
    shares = [(i + 1.0) / sum(range(1, count + 1)) for i in range(count)]
    out = torch.empty_like(vectors[0])
    method = merge_method("linear")
    inputs = MergeInputs(members=vectors, layout=layout, identities=[str(i) for i in range(count)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours = []
    for _ in range(REPEATS):
        started = time.process_time()
        run_method(method, out, shares, inputs, threads=1)
        ours.append(time.process_time() - started)
    torch.set_num_threads(threads)
    command = [python, str(HERE / "theirs_merges.py"), str(root), str(count), str(REPEATS)]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    theirs = json.loads(made.stdout.strip().splitlines()[-1])
    mine, other = _steps_off(root / "theirs.safetensors", out, layout, vectors, shares)
    ratios = {path: min(theirs[path]) / min(ours) for path in ("memory", "disk")}
    return [
        measured(
            f"{name}/{path}",
            ratios[path],
            "x cheaper",
            aim,
            ratios[path] >= aim and mine <= NEAREST,
            f"CPU {1e3 * min(ours):.0f} ms against {1e3 * min(theirs[path]):.0f} ms; "
            f"{layout.parameters / 1e6:.0f}M; bfloat16 steps off the float64 sum, at most: ablate "
            f"{mine:.2f}, mergekit {other:.2f}",
        )
        for path, aim in (("memory", MEMORY_AIM), ("disk", DISK_AIM))
    ]


def _steps_off(
    file: Path, ours: torch.Tensor, layout: Layout, vectors: list[torch.Tensor], shares: list[float]
) -> tuple[float, float]:
    """Return how far each side's bfloat16 merge is off at most, in steps of what was added up."""
    worst, tensors = [0.0, 0.0], load_file(file)
    for entry in layout.entries:
        if entry.name in tensors:
            there = tensors[entry.name].double().flatten()
            span = slice(entry.offset, entry.offset + there.numel())
            pairs = list(zip(shares, vectors, strict=True))
            exact = torch.stack([share * vector[span].double() for share, vector in pairs])
            step = exact.abs().sum(0).clamp(min=2.0**-20) * ULP
            for side, got in enumerate((ours[span].to(torch.bfloat16).double(), there)):
                off = (got - exact.sum(0)).abs() / step
                worst[side] = max(worst[side], float(off.max()))
    return worst[0], worst[1]
