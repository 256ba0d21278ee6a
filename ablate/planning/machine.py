"""What this machine does: measured for about two seconds, by the code that runs later.

The models here are Llamas of the study's width, vocabulary and weights per layer, cut where they
are large, with random weights: the rate of a step depends on its shapes, not on its values.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.evaluate.blocks import Domain
from ablate.evaluate.device import evaluation_dtype
from ablate.evaluate.likelihood import Evaluator
from ablate.merge.linear import linear
from ablate.merge.slices import one_thread_each
from ablate.models.build import ModelShape

SECONDS = 0.5
"""How long each measurement is repeated, once at least."""
MOST_WIDTH, MOST_LAYERS, MOST_VOCABULARY = 512, 4, 8192
STEP_FLOPS, LEAST_TOKENS = 1e10, 64
"""A training step is cut to so many FLOPs, but not below so many tokens."""
HEAD_WIDTH = 64
MERGED, MERGE_NUMEL = 4, 1 << 23
SQUARE = 512
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What is measured: one worker's micro batch, one evaluator's pass, and a node's merges."""

    shape: ModelShape
    length: int
    sequences: int
    precision: str
    scoring_length: int
    scoring_precision: str
    batch_tokens: int | None
    training_threads: int
    scoring_threads: int
    processes: int


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Sustained rates of one worker in training and of one evaluator, FLOP/s; of merges, bytes/s.

    Rates are per second of CPU time, so that whatever else runs here does not count; `cpu_share` is
    what a process gets of a CPU beside it, at most 1. `crowding` is what a process keeps of its
    rate when all CPUs work; the rates are with it.
    """

    training: float
    scoring: float
    merging: float
    crowding: float
    cpu_share: float


def measure(probe: Probe) -> Rates:
    """Return the rates of this machine's CPUs."""
    before = torch.get_num_threads()
    crowding = _crowding(probe.processes)
    cpu, wall = time.thread_time(), time.perf_counter()
    model, shape = _model(probe)
    try:
        torch.set_num_threads(probe.training_threads)
        training = _training(model, shape, probe)
        torch.set_num_threads(probe.scoring_threads)
        scoring = _scoring(model, shape, probe)
    finally:
        torch.set_num_threads(before)
    share = min(1.0, (time.thread_time() - cpu) / (time.perf_counter() - wall))
    return Rates(
        training=crowding * training,
        scoring=crowding * scoring,
        merging=_merging(probe.shape.parameters, probe.processes),
        crowding=crowding,
        cpu_share=share,
    )


def _rate(work: Callable[[], object]) -> float:
    """Return how often `work` is done in a second of this thread's CPU time.

    The first call does not count unless it alone takes long: it allocates what later ones reuse.
    """
    spent, calls = _timed(work, 0.0)
    if spent < SECONDS:
        spent, calls = _timed(work, SECONDS)
    return calls / spent


def _timed(work: Callable[[], object], seconds: float) -> tuple[float, int]:
    """Return the CPU seconds and the calls of doing `work` for `seconds`, once at least."""
    wall, cpu, calls = time.perf_counter(), time.thread_time(), 0
    while calls == 0 or time.perf_counter() - wall < seconds:
        work()
        calls += 1
    return time.thread_time() - cpu, calls


def _rates_together(work: Callable[[], object], processes: int) -> float:
    """Return the mean rate of `work` on each of so many threads at once; see `_rate`."""
    with one_thread_each(), ThreadPoolExecutor(processes) as pool:
        return float(np.mean(list(pool.map(lambda _: _rate(work), range(processes)))))


def _crowding(processes: int) -> float:
    """Return the rate of a matrix product on each of `processes` threads, over that of one alone."""
    left, right = torch.rand(SQUARE, SQUARE), torch.rand(SQUARE, SQUARE)
    product = partial(torch.mm, left, right)
    if processes == 1:
        return 1.0
    return min(1.0, _rates_together(product, processes) / _rates_together(product, 1))


def _model(probe: Probe) -> tuple[LlamaForCausalLM, ModelShape]:
    """Return a model of the study's shape, cut where that is large, and its own shape."""
    asked = probe.shape
    width = min(asked.width, MOST_WIDTH) // HEAD_WIDTH * HEAD_WIDTH or asked.width
    layers = min(asked.layers, MOST_LAYERS)
    vocabulary = min(asked.vocabulary, MOST_VOCABULARY)
    a_layer = (asked.multiplied - asked.vocabulary * asked.width) / asked.layers
    inner = max((a_layer / asked.width**2 - 4) / 3, 1.0) * width
    heads = max(1, width // HEAD_WIDTH)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=round(inner),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max(probe.length, probe.scoring_length),
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    numel = sum(parameter.numel() for parameter in model.parameters())
    cut = ModelShape(
        parameters=numel, multiplied=numel, layers=layers, width=width, vocabulary=vocabulary
    )
    return model, cut


def _training(model: LlamaForCausalLM, shape: ModelShape, probe: Probe) -> float:
    """Return the FLOP/s of forward, backward and AdamW on one micro batch."""
    length, most = _tokens(shape, probe.length)
    sequences = min(probe.sequences, most)
    tokens = torch.randint(shape.vocabulary, (sequences, length))
    model.train().to(DTYPES[probe.precision])
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _rate(step) * tokens.numel() * training_flops(shape, length)


def _scoring(model: LlamaForCausalLM, shape: ModelShape, probe: Probe) -> float:
    """Return the FLOP/s of the evaluator on random tokens."""
    length, sequences = _tokens(shape, probe.scoring_length)
    count = length * sequences
    model.to(evaluation_dtype(probe.scoring_precision, torch.device("cpu")))
    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, count)
    domain = Domain(name="random", tokens=tokens, token_bytes=np.ones(count, np.uint32))
    evaluator = Evaluator(model, [domain], length=length, batch_tokens=probe.batch_tokens)
    return _rate(evaluator.score) * evaluator.scored_tokens * scoring_flops(shape, length)


def _tokens(shape: ModelShape, length: int) -> tuple[int, int]:
    """Return the length of a sequence, cut where it is long, and how many a measured step holds."""
    most = max(LEAST_TOKENS, int(STEP_FLOPS / training_flops(shape, length)))
    return min(length, most), max(1, most // length)


def _merging(parameters: int, processes: int) -> float:
    """Return the bytes a second that linear merges of so many processes read and write in all."""
    numel = min(parameters, MERGE_NUMEL)
    members = [torch.full((numel,), float(place)) for place in range(MERGED)]
    weights = [1 / MERGED] * MERGED

    def merge() -> None:
        linear(torch.empty(numel), members, weights)

    return _rates_together(merge, processes) * processes * (MERGED + 1) * 4 * numel


def training_flops(shape: ModelShape, length: int) -> float:
    """Return the FLOPs of training on one token of a sequence of `length`: 6 N + 12 L d s.

    Source: PaLM, arXiv 2204.02311, appendix B.
    """
    return 3 * scoring_flops(shape, length)


def scoring_flops(shape: ModelShape, length: int) -> float:
    """Return the FLOPs of scoring one token of a window of `length`: 2 N + 4 L d s."""
    return 2.0 * shape.multiplied + 4.0 * shape.layers * shape.width * length
