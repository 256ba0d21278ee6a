"""Training: steady-state tokens/s of our loop against a bare PyTorch loop.

Both train the same model of more than 20 million parameters on the same batches, in one process,
with the same threads and optimizer. Steps alternate, ours, bare, ours, bare, so that whatever
else the machine does falls on both.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench._numbers import at_least, at_most

STEPS = 16
WARM_STEPS = 3
SEQUENCE_LENGTH = 128
SEQUENCES = 8
VOCABULARY = 8192
MODEL = {
    "preset": "tiny",
    "overrides": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
    },
}


def run() -> list[dict[str, Any]]:
    """Return the measured numbers of this group."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["LOCAL_RANK"] = "0"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(Path(folder))
    finally:
        dist.destroy_process_group()


def _measure(root: Path) -> list[dict[str, Any]]:
    from ablate.train.job import Placement
    from ablate.train.loop import train_one

    placement = Placement(
        workers=1,
        threads=1,
        gpu=False,
        micro_batch_sequences=SEQUENCES,
        checkpoint_seconds=1e9,
        deepspeed={"zero_optimization": {"stage": 0}},
    )
    bare = _Bare(root)
    train_one(bare.job, placement, bare)
    ours, plain = statistics.median(bare.ours), statistics.median(bare.plain)
    tokens = SEQUENCES * SEQUENCE_LENGTH
    return [
        at_least(
            "train/tokens_per_second_of_bare_loop",
            plain / ours,
            "ratio",
            0.95,
            f"{tokens / ours:,.0f} tokens/s against {tokens / plain:,.0f}; "
            f"{bare.parameters / 1e6:.1f} M parameters, fp32, 1 thread, medians of "
            f"{len(bare.ours)} alternating steps of {tokens} tokens",
        ),
        at_most(
            "train/start_of_a_further_model",
            bare.first - ours,
            "s",
            None,
            "build the model and its DeepSpeed engine in a worker that runs already; "
            "imports and the process group are paid once per lane",
        ),
    ]


class _Bare:
    """Listens to our run, and does one bare step after each of its steps."""

    def __init__(self, root: Path) -> None:
        import torch

        from ablate.train.loop import read_windows, start_model

        self.job = _job(root)
        self.ours: list[float] = []
        self.plain: list[float] = []
        self.first = 0.0
        self._windows = read_windows(self.job)
        self._model = start_model(self.job).train()
        self.parameters = sum(p.numel() for p in self._model.parameters())
        matrices = [p for p in self._model.parameters() if p.ndim >= 2]
        vectors = [p for p in self._model.parameters() if p.ndim < 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], fused=True
        )
        self._step = 0
        self._since = time.perf_counter()

    def tokens(self, done: int) -> bool:
        ours = time.perf_counter() - self._since
        before = time.perf_counter()
        self._bare_step()
        plain = time.perf_counter() - before
        if self._step == 1:
            self.first = ours
        elif self._step > WARM_STEPS:
            self.ours.append(ours)
            self.plain.append(plain)
        self._since = time.perf_counter()
        return False

    def note(self, text: str) -> None:
        raise RuntimeError(text)

    def _bare_step(self) -> None:
        import torch

        ids = torch.from_numpy(self._windows.batch(self._step, SEQUENCES, 0, SEQUENCES))
        self._step += 1
        loss = self._model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        loss.item()


def _job(root: Path) -> Any:
    import numpy as np

    from ablate.corpus.token_files import TokenWriter
    from ablate.train.job import Start, TokenSlice, TrainingJob
    from ablate.train.recipe import Recipe

    count = STEPS * SEQUENCES * SEQUENCE_LENGTH
    (root / "tokenizer").mkdir()
    with TokenWriter(root / "train.arrow", np.uint16) as writer:
        writer.write(np.random.default_rng(0).integers(0, VOCABULARY, count))
    recipe = Recipe(
        steps=STEPS,
        batch_tokens=SEQUENCES * SEQUENCE_LENGTH,
        sequence_length=SEQUENCE_LENGTH,
        peak=1e-3,
        schedule="constant",
        warmup_steps=0,
        decay_steps=0,
        final_share=0.1,
        weight_decay=0.01,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        clip=1.0,
        precision="fp32",
        carry_moments=False,
        rng_seed=0,
    )
    piece = TokenSlice(
        path="train.arrow",
        start=0,
        stop=count,
        digest=None,
        file_tokens=count,
        file_digest="",
    )
    return TrainingJob(
        name="bench",
        kind="unit",
        start=Start(mark="bench", model=MODEL, vocab_size=VOCABULARY, eos_token_id=0),
        slices=(piece,),
        recipe=recipe,
        workspace=str(root),
        folder=str(root / "models" / "bench"),
        resume_folder=str(root / "models" / ".resume-bench"),
        log_file=str(root / "logs" / "bench.jsonl"),
        tokenizer_folder=str(root / "tokenizer"),
    )
