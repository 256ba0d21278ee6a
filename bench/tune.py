"""Ray Tune: what a trial costs beside its merge and evaluation, and how much memory a pool takes.

Real small models in a real workspace; two evaluators of one thread each.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ablate.cluster.pool import store_pool
from ablate.cluster.session import session
from ablate.cluster.tune import run_trials
from ablate.evaluate.blocks import Domain
from ablate.evaluate.scorer import ScorerSettings
from ablate.models.checkpoint import save_checkpoint
from ablate.models.layout import flatten, layout_of
from ablate.models.pool import ModelPool, SeedModel, UnitModel
from ablate.progress import set_quiet
from ablate.resources import Cluster
from ablate.search.algorithms import ALGORITHMS, Task
from ablate.search.conversation import Conversation
from ablate.search.journal import Journal
from ablate.search.questions import Frame, Questions
from ablate.search.spaces import subset_space
from ablate.study import MergeSettings, SpaceSettings

VOCABULARY = 512
LENGTH = 64
EVALUATORS = 2
PARTITIONS = 12


def run() -> list[dict[str, Any]]:
    """Return ceremony per trial over 500 trials, its growth over 3,000, and the pool's memory."""
    set_quiet(True)
    with tempfile.TemporaryDirectory() as folder, session(Cluster(cpus=EVALUATORS)):
        root = Path(folder)
        pool, layout = make_pool(root / "small", hidden=32, partitions=PARTITIONS)
        short = _search(root / "small", pool, layout, root / "short.jsonl", trials=500)
        long = _search(root / "small", pool, layout, root / "long.jsonl", trials=3000)
        big_pool, big_layout = make_pool(root / "big", hidden=640, partitions=6)
        memory = _pool_memory(root / "big", big_pool, big_layout)
    tenth = max(1, len(long["ends"]) // 10)
    first = long["ends"][tenth] - long["ends"][0]
    last = long["ends"][-1] - long["ends"][-1 - tenth]
    return [
        _number("tune/ceremony-per-trial", 1e3 * short["ceremony"], "ms", 50.0, short["detail"]),
        _number(
            "tune/last-tenth-over-first", last / first, "x", 1.2, f"{len(long['ends'])} trials"
        ),
        memory,
        *_shares(short),
    ]


def _shares(search: dict[str, Any]) -> list[dict[str, Any]]:
    """Return where a trial's time goes, ms of one evaluator; the driver works beside it."""
    parts = {
        "merge": search["merge"],
        "evaluate": search["evaluate"],
        "tune-and-ray": search["ceremony"],
        "driver": search["driver"],
    }
    return [
        {
            "name": f"tune/trial/{name}",
            "value": round(1e3 * seconds, 3),
            "unit": "ms",
            "limit": None,
            "holds": True,
            "detail": "CPU time of the driver's process, per trial"
            if name == "driver"
            else "of an evaluator's time per trial, a small model",
        }
        for name, seconds in parts.items()
    ]


def make_pool(root: Path, *, hidden: int, partitions: int) -> tuple[ModelPool, Any]:
    """Write a seed and one unit per partition, random but close together; return their pool."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY if hidden < 128 else 8192,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2 if hidden < 128 else 6,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    layout = layout_of(model)
    seed = flatten(model, layout)
    tokenizer = root / "tokenizer"
    _write_tokenizer(tokenizer)

    def save(name: str, flat: torch.Tensor) -> str:
        return save_checkpoint(
            root / "models" / name,
            config=config,
            layout=layout,
            flat=flat,
            tokenizer_folder=tokenizer,
            training={"kind": "bench"},
        )

    digest = save("seed-0", seed)
    units = []
    for index in range(partitions):
        name = f"unit-p{index:02d}-0"
        units.append(
            UnitModel(
                partition=f"p{index:02d}",
                index=0,
                fingerprint=f"{index:012x}",
                folder=f"models/{name}",
                digest=save(name, seed + 0.01 * torch.randn_like(seed) * (seed != 0)),
                tokens=1000,
            )
        )
    return (
        ModelPool(
            seed=SeedModel(fingerprint="seed", folder="models/seed-0", digest=digest),
            units=tuple(units),
            layout_fingerprint=layout.fingerprint,
            tokenizer="none",
            root=str(root),
        ),
        layout,
    )


def _write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(BPE(vocab={"<|endoftext|>": 0}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        folder
    )


def _search(root: Path, pool: ModelPool, layout: Any, journal: Path, trials: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, 2 * LENGTH).astype(np.uint16)
    domain = Domain(name="random", tokens=tokens, token_bytes=np.ones(tokens.size, np.uint32))
    units = pool.units_of()
    space = subset_space(SpaceSettings(), units, dict.fromkeys(units, 1000), "micro")
    ends: list[float] = []

    class Clocked(Journal):
        def append(self, candidate: Any, scored: Any) -> None:
            ends.append(time.perf_counter())
            super().append(candidate, scored)

    questions = Questions(
        pool=pool,
        frame=Frame(domains={"random": "0"}, weights={"random": 1.0}),
        merge=MergeSettings(),
        journal=Clocked(journal),
        begin=lambda: Conversation(
            ALGORITHMS["exhaustive"](Task(space=space, rng_seed=0, trials=trials)), trials
        ),
    )
    settings = ScorerSettings(
        seed_folder=str(root / pool.seed.folder),
        trust_remote_code=False,
        length=LENGTH,
        precision="fp32",
        batch_tokens=None,
        threads=1,
        gpus=0,
    )
    store = store_pool(pool, layout, root, set(pool.by_member))
    started, worked = time.perf_counter(), time.process_time()
    run_trials(
        questions,
        cluster=Cluster(cpus=EVALUATORS),
        settings=settings,
        domains=[domain],
        store=store,
        total=trials,
    )
    wall, worked = time.perf_counter() - started, time.process_time() - worked
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    merge = sum(line["merge_seconds"] for line in lines) / len(lines)
    evaluate = sum(line["evaluate_seconds"] for line in lines) / len(lines)
    work = merge + evaluate
    # From the first trials on: what starting the evaluators (imports) took is said beside it.
    steady = (ends[-1] - ends[EVALUATORS]) / (len(ends) - 1 - EVALUATORS)
    return {
        "ends": ends,
        "merge": merge,
        "evaluate": evaluate,
        "driver": worked / len(lines),
        "ceremony": steady * EVALUATORS - work,
        "detail": (
            f"{len(ends)} trials, {EVALUATORS} evaluators, merge + evaluation {1e3 * work:.1f} ms; "
            f"start and end of the search took {wall - (ends[-1] - ends[EVALUATORS]):.1f} s more"
        ),
    }


def _pool_memory(root: Path, pool: ModelPool, layout: Any) -> dict[str, Any]:
    """Return the proportional set size that two processes add by reading every member whole."""
    members = list(store_pool(pool, layout, root, set(pool.by_member)).references.values())
    actor = ray.remote(num_cpus=1)(_Reader)
    readers = [actor.remote() for _ in range(EVALUATORS)]
    before = sum(ray.get([reader.memory.remote() for reader in readers]))
    ray.get([reader.read.remote(members) for reader in readers])
    after = sum(ray.get([reader.memory.remote() for reader in readers]))
    size = 4 * layout.numel * len(members)
    return _number(
        "tune/pool-copies",
        (after - before) / size,
        "copies",
        1.1,
        f"PSS of {EVALUATORS} evaluators over {len(members)} models, {size / 1e6:.0f} MB",
    )


class _Reader:
    """A process that maps all members, as an evaluator does."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def read(self, members: list[Any]) -> float:
        self.arrays = ray.get(members)
        return float(sum(array.sum() for array in self.arrays))

    def memory(self) -> int:
        rollup = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024


def _number(name: str, value: float, unit: str, limit: float, detail: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "limit": limit,
        "holds": value <= limit,
        "detail": detail,
    }
