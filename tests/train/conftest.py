"""Small training runs on CPU: a Llama of 30 thousand parameters, a few hundred tokens a step."""

from __future__ import annotations

import os

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.train.runs import prepare_folder


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """A torch.distributed group of this process alone, as a Ray Train worker has one."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = "0"
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace folder with 5,000 tokens of text-like ids and an empty tokenizer folder."""
    return prepare_folder(tmp_path)
