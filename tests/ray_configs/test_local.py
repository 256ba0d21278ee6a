"""local.yaml for real: a small study on it, as a user starts it."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "ray_configs"
STUDY = """
name: local
workspace: work
corpus:
  sources: [{path: data.jsonl, partition_by: half}]
  unit_tokens: 8_000
  heldout: {documents: 0.1}
  decontaminate: null
tokenizer: {train: {vocab_size: 384}}
model:
  preset: tiny
  overrides: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}
seed: {sources: [{path: data.jsonl}], tokens: 8_000}
train: {sequence_length: 64, batch_tokens: 1024, learning_rate: 3e-3}
evaluate: {tokens_per_domain: 1_000}
"""


@pytest.mark.slow
def test_a_study_runs_on_this_machine(tmp_path: Path) -> None:
    topics = sorted(pydoc_data.topics.topics.values())
    lines = [{"text": text[:1500], "half": "ab"[i % 2]} for i, text in enumerate(topics)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "study.yaml").write_text(STUDY)
    command = "import ablate.cli; ablate.cli.main()"
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            command,
            "run",
            "study.yaml",
            "--cluster",
            str(FOLDER / "local.yaml"),
        ],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert ran.returncode == 0, ran.stderr
    models = [path.name for path in (tmp_path / "work" / "models").iterdir()]
    assert sum(name.startswith("unit-") for name in models) >= 2
    assert (tmp_path / "work" / "trials.parquet").is_file()
    assert (tmp_path / "work" / "report.html").is_file()
