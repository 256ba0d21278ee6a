"""Ray Tune: what a trial costs beside its merge and evaluation, and how much memory a pool takes.

Real small models in a real workspace; two evaluators of one thread each.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from ablate.cluster.pool import store_pool
from ablate.cluster.session import session
from ablate.cluster.tune import run_trials
from ablate.evaluate.blocks import Domain
from ablate.evaluate.scorer import ScorerSettings
from ablate.models.checkpoint import save_checkpoint
from ablate.models.layout import Layout, flatten, layout_of
from ablate.models.pool import ModelPool, SeedModel, UnitModel
from ablate.progress import set_quiet
from ablate.resources import Cluster
from ablate.search.algorithms import ALGORITHMS, Task
from ablate.search.candidates import Candidate
from ablate.search.conversation import Conversation
from ablate.search.journal import Journal, Scored
from ablate.search.questions import Frame, Questions
from ablate.search.spaces import Space, subset_space
from ablate.study import MergeSettings, SpaceSettings
from bench._numbers import at_most

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
        short = _search(root / "small", pool, layout, root / "short.jsonl", "exhaustive", 500)
        # In random order: exhaustive search ends with larger mixtures, which are more work.
        long = _search(root / "small", pool, layout, root / "long.jsonl", "random", 3000)
        big_pool, big_layout = make_pool(root / "big", hidden=640, partitions=6)
        memory = _pool_memory(root / "big", big_pool, big_layout)
    tenth = max(1, len(long["ends"]) // 10)
    first = long["ends"][tenth] - long["ends"][0]
    last = long["ends"][-1] - long["ends"][-1 - tenth]
    return [
        at_most("tune/ceremony-per-trial", 1e3 * short["ceremony"], "ms", 50.0, short["detail"]),
        at_most(
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
    of_evaluator = "of an evaluator's time per trial, a small model"
    details = dict.fromkeys(parts, of_evaluator)
    details["driver"] = "CPU time of the driver's process, per trial"
    return [
        at_most(f"tune/trial/{name}", 1e3 * seconds, "ms", None, details[name])
        for name, seconds in parts.items()
    ]


def make_pool(root: Path, *, hidden: int, partitions: int) -> tuple[ModelPool, Layout]:
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
    units = (seed + 0.01 * torch.randn_like(seed) * (seed != 0) for _ in range(partitions))
    return save_pool(root, config, layout, seed, units), layout


def save_pool(
    root: Path,
    config: PretrainedConfig,
    layout: Layout,
    seed: torch.Tensor,
    units: Iterable[torch.Tensor],
) -> ModelPool:
    """Write flat vectors as checkpoints in a workspace, one partition a unit; return their pool."""
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

    return ModelPool(
        seed=SeedModel(fingerprint="seed", folder="models/seed-0", digest=save("seed-0", seed)),
        units=tuple(
            UnitModel(
                partition=f"p{index:02d}",
                index=0,
                fingerprint=f"{index:012x}",
                folder=f"models/unit-p{index:02d}-0",
                digest=save(f"unit-p{index:02d}-0", unit),
                tokens=1000,
            )
            for index, unit in enumerate(units)
        ),
        layout_fingerprint=layout.fingerprint,
        tokenizer="none",
        root=str(root),
    )


def _write_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(BPE(vocab={"<|endoftext|>": 0}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        folder
    )


def _search(
    root: Path, pool: ModelPool, layout: Layout, journal: Path, algorithm: str, trials: int
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, 2 * LENGTH).astype(np.uint16)
    domain = Domain(name="random", tokens=tokens, token_bytes=np.ones(tokens.size, np.uint32))
    units = pool.units_of()
    ends: list[float] = []
    parts: list[Scored] = []

    def told(_: Candidate, scored: Scored) -> None:
        ends.append(time.perf_counter())
        parts.append(scored)

    started, worked = time.perf_counter(), time.process_time()
    search_trials(
        root,
        pool,
        layout,
        journal,
        domain=domain,
        length=LENGTH,
        space=subset_space(SpaceSettings(), units, dict.fromkeys(units, 1000), "micro"),
        algorithm=algorithm,
        trials=trials,
        evaluators=EVALUATORS,
        told=told,
    )
    wall, worked = time.perf_counter() - started, time.process_time() - worked
    merge = sum(scored.merge_seconds for scored in parts) / len(parts)
    evaluate = sum(scored.evaluate_seconds for scored in parts) / len(parts)
    work = merge + evaluate
    # From the first trials on: what starting the evaluators (imports) took is said beside it.
    steady = (ends[-1] - ends[EVALUATORS]) / (len(ends) - 1 - EVALUATORS)
    return {
        "ends": ends,
        "merge": merge,
        "evaluate": evaluate,
        "driver": worked / len(parts),
        "ceremony": steady * EVALUATORS - work,
        "detail": (
            f"{len(ends)} trials, {EVALUATORS} evaluators, merge + evaluation {1e3 * work:.1f} ms; "
            f"start and end of the search took {wall - (ends[-1] - ends[EVALUATORS]):.1f} s more"
        ),
    }


def search_trials(
    root: Path,
    pool: ModelPool,
    layout: Layout,
    journal: Path,
    *,
    domain: Domain,
    length: int,
    space: Space,
    algorithm: str,
    trials: int,
    evaluators: int,
    told: Callable[[Candidate, Scored], None],
) -> None:
    """Search a pool in its workspace `root` through Tune; `told` hears each trial as it ends."""

    class Heard(Journal):
        def append(self, candidate: Candidate, scored: Scored) -> None:
            told(candidate, scored)
            super().append(candidate, scored)

    questions = Questions(
        pool=pool,
        frame=Frame(domains={domain.name: "0"}, weights={domain.name: 1.0}),
        merge=MergeSettings(),
        journal=Heard(journal),
        begin=lambda: Conversation(
            ALGORITHMS[algorithm](Task(space=space, rng_seed=0, trials=trials)), trials
        ),
    )
    settings = ScorerSettings(
        seed_folder=str(root / pool.seed.folder),
        trust_remote_code=False,
        length=length,
        precision="fp32",
        batch_tokens=None,
        threads=1,
        gpus=0,
    )
    run_trials(
        questions,
        cluster=Cluster(cpus=evaluators),
        settings=settings,
        domains=[domain],
        store=store_pool(pool, layout, root, set(pool.by_member)),
        total=trials,
    )


def _pool_memory(root: Path, pool: ModelPool, layout: Any) -> dict[str, Any]:
    """Return the proportional set size that two processes add by reading every member whole."""
    members = list(store_pool(pool, layout, root, set(pool.by_member)).references.values())
    actor = ray.remote(num_cpus=1)(_Reader)
    readers = [actor.remote() for _ in range(EVALUATORS)]
    before = sum(ray.get([reader.memory.remote() for reader in readers]))
    ray.get([reader.read.remote(members) for reader in readers])
    after = sum(ray.get([reader.memory.remote() for reader in readers]))
    size = 4 * layout.numel * len(members)
    return at_most(
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
