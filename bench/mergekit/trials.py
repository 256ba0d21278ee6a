"""Whole trials of a search: the same fifty mixtures, members, documents and thread.

mergekit-evolve's in-memory trial is called in one process, without Ray, in its best case (batches,
float32 log-probabilities, environment not described) and as shipped. ablate's trials go through
its search as users run it: Ray Tune, one evaluator, its journal; the CPU time of all processes is
counted. What merging and scoring take of it is measured in this process, with the same mixtures.
Starting either is left out. Members are a small Llama trained on four kinds of text. `ceiling` is
the ratio of a trial that did nothing but the forward pass's matrix products, as fast as this
machine multiplies.
"""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ablate.cluster.session import session
from ablate.evaluate.blocks import Domain
from ablate.evaluate.likelihood import CPU_BATCH_TOKENS
from ablate.models.layout import flatten, layout_of
from ablate.progress import set_quiet
from ablate.resources import Cluster
from ablate.search.candidates import Candidate
from ablate.search.journal import Scored
from ablate.search.spaces import simplex_space
from ablate.search.spaces.partitions import Partitions
from ablate.study import SpaceSettings
from bench._numbers import at_least, at_most
from bench.mergekit.merges import llama
from bench.tune import save_pool, search_trials

HERE = Path(__file__).parent
MIXTURES = 50
SCORED = 120  # tokens of a document, after its end-of-text token
VOCABULARY = 8192
TEXT, PIECE = 300_000, 4_000  # characters of a kind, and of what is encoded at once
END = "<|endoftext|>"
KINDS = ("asyncio", "email", "pydoc_data", "unittest")  # folders of the standard library
# Documents, the aim of the whole trial's ratio, and searches of each side, one after the other.
CASES = {"1k": (8, 5.0, 3), "8k": (64, 2.0, 1)}
FIXED_AIM = 15.0
CHECKED = 10  # mixtures whose losses are computed again in float32
SHIPPED = 8  # mixtures that it scores as shipped, which takes it long
DRIFT = 1e-4
Part = dict[str, Any]


def run(python: str) -> list[dict[str, Any]]:
    """Return ratios of CPU time per trial, whole and fixed, and how right each side's losses are."""
    set_quiet(True)
    numbers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, session(Cluster(cpus=1)):
        work = _Work(Path(folder))
        for label, (documents, aim, rounds) in CASES.items():
            numbers += work.compare(label, documents, aim, rounds, python)
    return numbers


class _Work:
    """Documents and four members trained from one seed, as files of both sides."""

    def __init__(self, root: Path) -> None:
        self.root = root
        texts = {kind: _text(kind) for kind in KINDS}
        tokenizer = _tokenizer(part for parts in texts.values() for part in parts)
        ids = {
            kind: [token for one in tokenizer.encode_batch(parts) for token in one.ids]
            for kind, parts in texts.items()
        }
        self.end = tokenizer.token_to_id(END)
        self.documents, self.texts = _documents(tokenizer, ids)
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(llama(384, 6, VOCABULARY))
        self.layout = layout_of(self.model)
        _train(self.model, [token for kind in KINDS for token in ids[kind]], steps=30)
        start, self.members = copy.deepcopy(self.model.state_dict()), []
        seed = flatten(self.model, self.layout)
        for kind in KINDS:
            self.model.load_state_dict(start)
            _train(self.model, ids[kind], steps=8)
            half = copy.deepcopy(self.model).to(torch.bfloat16)
            half.save_pretrained(root / kind)
            _save_tokenizer(tokenizer, root / kind)
            self.members.append(flatten(half.float(), self.layout))
        self.pool = save_pool(root, self.model.config, self.layout, seed, self.members)

    def compare(
        self, label: str, count: int, aim: float, rounds: int, python: str
    ) -> list[dict[str, Any]]:
        """Return the numbers of trials over the first `count` documents: of the median rounds."""
        both = []
        for turn in range(rounds):
            weights, mine = self._ours(f"{label}-{turn}", count)
            both.append((mine, self._theirs(label, count, weights, python, best=True)))
        ours, best = (
            sorted(parts, key=lambda part: part["whole"])[rounds // 2]
            for parts in zip(*both, strict=True)
        )
        shipped = self._theirs(label, count, weights[:SHIPPED], python, best=False)
        right = np.array([self._reference(one, count) for one in weights[:CHECKED]])
        name, sides = f"mergekit/{label}", {"best-case": best, "as-shipped": shipped}
        numbers = []
        for side, theirs in sides.items():
            for part, wanted in (("whole", aim), ("fixed", FIXED_AIM)):
                ratio = theirs[part] / ours[part]
                limit = wanted if side == "best-case" else None
                detail = f"CPU ms a trial, ablate {_parts(ours)}; mergekit {_parts(theirs)}"
                numbers.append(at_least(f"{name}/{part}/{side}", ratio, "x cheaper", limit, detail))
        products = self._products(count)
        numbers.append(
            at_least(
                f"{name}/ceiling",
                best["whole"] / products,
                "x cheaper",
                None,
                f"mergekit's best case over matrix products alone, {1e3 * products:.0f} ms",
            )
        )
        for side, part in {"ablate": ours, **sides}.items():
            kept = min(CHECKED, len(part["losses"]))
            drift = float(np.abs(part["losses"][:kept] / right[:kept] - 1).max())
            limit = DRIFT if side == "ablate" else None
            detail = f"against float32; {len(set(part['losses']))} distinct losses of {len(part['losses'])}"
            numbers.append(at_most(f"{name}/drift/{side}", drift, "relative", limit, detail))
        return numbers

    def _ours(self, label: str, count: int) -> tuple[list[list[float]], Part]:
        """Return the mixtures' weights, and CPU seconds a trial of every process of the search.

        What merging and scoring take of it is by the evaluator's own clock: it works by itself, on
        one thread.
        """
        tokens = np.array([one for document in self.documents[:count] for one in document])
        domain = Domain(name="text", tokens=tokens, token_bytes=np.ones_like(tokens))
        units = self.pool.units_of()
        facts = dict.fromkeys(units, 1000)
        space = simplex_space(
            SpaceSettings(kind="simplex"), Partitions(units=units, tokens=facts, available=facts)
        )
        heard: list[tuple[Candidate, Scored, float]] = []
        search_trials(
            self.root, self.pool, self.layout, self.root / f"{label}.jsonl",
            domain=domain, length=SCORED + 1, space=space, algorithm="random",
            trials=MIXTURES + 1, evaluators=1,
            told=lambda candidate, scored: heard.append((candidate, scored, _tree_cpu())),
        )  # fmt: skip
        assert len(heard) == MIXTURES + 1, "every mixture must be scored"
        whole = (heard[-1][2] - heard[0][2]) / MIXTURES
        scored = [entry for _, entry, _ in heard[1:]]
        losses = [next(iter(entry.scores.values())).loss for entry in scored]
        names = sorted(units)
        weights = [
            [dict(candidate.coefficients).get((name, 0), 0.0) for name in names]
            for candidate, _, _ in heard[1:]
        ]
        merging = float(np.mean([entry.merge_seconds for entry in scored]))
        scoring = float(np.mean([entry.evaluate_seconds for entry in scored]))
        return weights, _part(whole, merging, scoring, np.array(losses))

    @torch.inference_mode()
    def _products(self, count: int) -> float:
        """Return the least CPU seconds of the model's linear layers on the documents, one thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        layers = [part for part in self.model.modules() if isinstance(part, torch.nn.Linear)]
        seconds = 0.0
        for layer in layers:
            rows = torch.randn(CPU_BATCH_TOKENS, layer.in_features)
            took = []
            for _ in range(5):
                started = time.process_time()
                layer(rows)
                took.append(time.process_time() - started)
            seconds += min(took) * count * (SCORED + 1) / CPU_BATCH_TOKENS
        torch.set_num_threads(threads)
        return seconds

    def _theirs(
        self, label: str, count: int, weights: list[list[float]], python: str, *, best: bool
    ) -> Part:
        """Return CPU seconds a trial of mergekit-evolve's own evaluator."""
        folder = self.root / f"task-{label}"
        folder.mkdir(exist_ok=True)
        lines = [json.dumps({"text": text}) for text in self.texts[:count]]
        (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
        task = {
            "task": "text", "dataset_path": "json", "output_type": "loglikelihood_rolling",
            "dataset_kwargs": {"data_files": {"test": str(folder / "documents.jsonl")}},
            "test_split": "test", "doc_to_text": "", "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        }  # fmt: skip
        (folder / "text.yaml").write_text(json.dumps(task))  # JSON is YAML
        spec = {
            "models": [str(self.root / kind) for kind in KINDS], "weights": weights,
            "task": str(folder), "task_name": "text", "best": best,
        }  # fmt: skip
        file = folder / "spec.json"
        file.write_text(json.dumps(spec))
        made = subprocess.run(
            [python, str(HERE / "theirs_trials.py"), str(file)],
            capture_output=True, text=True,
            env={**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(self.root / "home")},
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"mergekit's side failed: {made.stderr[-2000:]}")
        rows = json.loads(made.stdout.strip().splitlines()[-1])
        size = sum(len(text.encode()) for text in self.texts[:count])
        losses = [row["bits_per_byte"] * math.log(2) * size / (count * SCORED) for row in rows]
        return _part(
            *(sum(row[kind] for row in rows) / len(rows) for kind in ("all", "merge", "score")),
            np.array(losses),
        )

    @torch.inference_mode()
    def _reference(self, weights: list[float], count: int) -> float:
        """Return a merge's nats per token: averaged in float64, float32 model, by transformers."""
        flat = sum(
            share * member.double() for share, member in zip(weights, self.members, strict=True)
        )
        assert isinstance(flat, torch.Tensor)
        for entry in self.layout.entries:
            span = flat[entry.offset : entry.offset + math.prod(entry.shape)]
            self.model.get_parameter(entry.name).copy_(span.view(entry.shape))
        batches = torch.tensor(self.documents[:count]).split(8)
        return float(
            np.mean([float(self.model(input_ids=one, labels=one).loss) for one in batches])
        )


def _part(whole: float, merge: float, score: float, losses: np.ndarray) -> Part:
    return {
        "whole": whole,
        "merge": merge,
        "score": score,
        "fixed": whole - merge - score,
        "losses": losses,
    }


def _parts(part: Part) -> str:
    return ", ".join(f"{kind} {1e3 * part[kind]:.0f}" for kind in ("merge", "score", "fixed"))


def _text(kind: str) -> list[str]:
    """Return pieces of a few thousand characters: a long text is slow to encode at once."""
    folder = Path(os.__file__).parent / kind
    text = "\n".join(file.read_text() for file in sorted(folder.glob("*.py")))[:TEXT]
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write it so that the older transformers of mergekit's environment reads it."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(settings))


def _documents(
    tokenizer: Tokenizer, ids: dict[str, list[int]]
) -> tuple[list[list[int]], list[str]]:
    """Return documents of all kinds in turn, end-of-text first, and their texts.

    Only texts that encode to the same tokens again: both sides must score the same tokens.
    """
    end, wanted = tokenizer.token_to_id(END), max(case[0] for case in CASES.values())
    found: list[tuple[list[int], str]] = []
    for start in range(0, min(map(len, ids.values())) - SCORED, SCORED):
        for kind in KINDS:
            tokens = ids[kind][start : start + SCORED]
            text = tokenizer.decode(tokens)
            if text.strip() == text and tokenizer.encode(text).ids == tokens:
                found.append(([end, *tokens], text))
    assert len(found) >= wanted, f"{wanted} documents are needed, got {len(found)}"
    return [tokens for tokens, _ in found], [text for _, text in found]


def _train(model: LlamaForCausalLM, tokens: list[int], *, steps: int) -> None:
    """Train on windows drawn in a fixed order; a few hundred tokens a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stream, rng = torch.tensor(tokens), np.random.default_rng(0)
    for _ in range(steps):
        starts = rng.integers(0, len(tokens) - SCORED - 1, 8)
        batch = torch.stack([stream[start : start + SCORED + 1] for start in starts])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()


def _tree_cpu() -> float:
    """Return the CPU seconds of this process and of all below it: Ray's own and the evaluators."""
    here = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (here, *here.children(recursive=True)))
