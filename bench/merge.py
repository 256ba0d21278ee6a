"""The linear merge against a copy of the same bytes, and its memory."""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.merge.linear import linear
from ablate.models.checkpoint import load_flat, save_checkpoint
from ablate.models.layout import flatten, layout_of
from bench._numbers import at_least, at_most

MEMBERS = 8
PARAMETERS = 50_331_648
ROUNDS = 25
READS = 7
WEIGHTS = [0.05, 0.1, 0.15, 0.2, 0.05, 0.1, 0.15, 0.2]


def run() -> list[dict[str, Any]]:
    """Return bandwidths of merges and copies, their ratios, and a merge's extra memory.

    Rounds of one merge and one copy of each kind: a bandwidth is the median round's, and a ratio
    the median of the rounds' own, since a machine's memory is not as fast in every second.
    """
    threads = os.cpu_count() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    members = [torch.from_numpy(np.empty(PARAMETERS, np.float32)) for _ in range(MEMBERS)]
    for number, member in enumerate(members):
        member.normal_(generator=torch.Generator().manual_seed(number))
    try:
        memory = _extra_models(members, threads)
        rates = _rates(members, threads)  # [rounds] by what was done
    finally:
        torch.set_num_threads(before)
    merge, half, copy, memcpy = (
        statistics.median(rates[name]) for name in ("merge", "bf16", "copy", "memcpy")
    )
    of_copy, of_memcpy = _ratio(rates, "copy"), _ratio(rates, "memcpy")
    about = f"{MEMBERS} models of {PARAMETERS / 1e6:.0f} M parameters, {threads} threads"
    return [
        at_least("merge/bandwidth", merge, "GB/s", None, f"{about}, float32"),
        at_least("merge/bandwidth-bf16", half, "GB/s", None, "into bfloat16"),
        at_least("merge/copy", copy, "GB/s", None, "Tensor.copy_, read + written bytes"),
        at_least("merge/memcpy", memcpy, "GB/s", None, "memcpy in threads, streaming stores"),
        at_least("merge/share-of-copy", of_copy, "x", 0.7, "bandwidth over Tensor.copy_'s"),
        at_least("merge/share-of-memcpy", of_memcpy, "x", None, "bandwidth over memcpy's"),
        at_most("merge/extra-memory", memory, "models", 1.1, "the merged model and all slices"),
        at_least("merge/read-checkpoint", _read_rate(), "GB/s", None, "load_flat, float32, cached"),
    ]


def _extra_models(members: list[torch.Tensor], threads: int) -> float:
    """Return the growth of the peak resident memory by one merge, in models."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = torch.empty(PARAMETERS)
    linear(out, members, WEIGHTS, threads=threads)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024 / (4 * PARAMETERS)


def _ratio(rates: dict[str, list[float]], other: str) -> float:
    """Return the median over rounds of the merge's bandwidth over that of `other`."""
    pairs = zip(rates["merge"], rates[other], strict=True)
    return statistics.median(merge / of for merge, of in pairs)


def _rates(members: list[torch.Tensor], threads: int) -> dict[str, list[float]]:
    """Return GB/s of each round, by what was done; the order turns by one from round to round."""
    size = 4 * PARAMETERS
    copies = [torch.from_numpy(np.ones(PARAMETERS, np.float32)) for _ in members]
    out = torch.from_numpy(np.ones(PARAMETERS, np.float32))
    half = torch.ones(PARAMETERS, dtype=torch.bfloat16)

    def copy() -> None:
        for source, target in zip(members, copies, strict=True):
            target.copy_(source)

    works: dict[str, tuple[Callable[[], None], int]] = {
        "merge": (lambda: linear(out, members, WEIGHTS, threads=threads), (MEMBERS + 1) * size),
        "copy": (copy, 2 * MEMBERS * size),
        "memcpy": (lambda: _memcpy(members, copies, threads), 2 * MEMBERS * size),
        "bf16": (
            lambda: linear(half, members, WEIGHTS, threads=threads),
            MEMBERS * size + size // 2,
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for _ in range(ROUNDS):
        for name in names:
            work, nbytes = works[name]
            started = time.perf_counter()
            work()
            rates[name].append(nbytes / (time.perf_counter() - started) / 1e9)
        names = [*names[1:], names[0]]
    return rates


def _memcpy(sources: list[torch.Tensor], targets: list[torch.Tensor], threads: int) -> None:
    share = -(-PARAMETERS // threads)

    def piece(start: int) -> None:
        for source, target in zip(sources, targets, strict=True):
            part = slice(start, start + share)
            np.copyto(target.numpy()[part], source.numpy()[part])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(piece, range(0, PARAMETERS, share)))


def _read_rate() -> float:
    """Return GB/s of reading a checkpoint of about 50 M parameters from the page cache."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 4}
    config = LlamaConfig(vocab_size=32768, tie_word_embeddings=True, **shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    layout = layout_of(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(
            folder / "model",
            config=config,
            layout=layout,
            flat=flatten(model, layout),
            tokenizer_folder=folder,
            training={},
        )
        out = np.ones(layout.numel, dtype=np.float32)
        best = float("inf")
        for _ in range(READS):
            started = time.perf_counter()
            load_flat(folder / "model", layout, out=out)
            best = min(best, time.perf_counter() - started)
    return out.nbytes / best / 1e9
