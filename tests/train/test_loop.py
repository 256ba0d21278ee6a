"""The loop against an independent one in plain PyTorch, and the laws of resuming."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deepspeed import DeepSpeedEngine
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ablate.errors import CheckpointError, CorpusError, RunError, StudyError
from ablate.models.checkpoint import checkpoint_digest, load_flat
from ablate.models.layout import flatten, layout_of
from ablate.models.load import load_model
from ablate.train.batches import Windows
from ablate.train.finished import is_complete, read_training, what_is_wrong
from ablate.train.job import Start, TrainingJob
from ablate.train.loop import start_model, train_one
from ablate.train.recipe import Recipe
from ablate.train.together import all_or_none
from tests.train.runs import (
    TOKENS,
    Listener,
    job,
    placement,
    prepare_folder,
    same,
    text_like,
    token_slice,
    weights,
)

pytestmark = pytest.mark.usefixtures("alone")

REPOSITORY = Path(__file__).parents[2]
CHILD = """
import os, sys
from pathlib import Path
import torch.distributed as dist
os.environ["DS_ACCELERATOR"] = "cpu"
from tests.train.runs import Listener, job, placement
from ablate.train.loop import train_one
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
root, stage = Path(sys.argv[1]), int(sys.argv[2])
train_one(job(root, "killed"), placement(stage, checkpoint_seconds=1e-9), Listener(kill_at=1024))
"""


def plain_training(start: torch.nn.Module, recipe: Recipe) -> tuple[list[float], torch.nn.Module]:
    """Return the losses and the model of an ordinary loop: whole batches, no DeepSpeed."""
    windows = Windows([text_like(TOKENS)], recipe.sequence_length, recipe.rng_seed, "plain")
    matrices = [p for p in start.parameters() if p.ndim >= 2]
    vectors = [p for p in start.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=recipe.betas,
        eps=recipe.epsilon,
    )
    losses = []
    for step in range(recipe.steps):
        size = recipe.batch_sequences
        ids = torch.from_numpy(windows.batch(step, size, 0, size))
        loss = start(input_ids=ids, labels=ids).loss
        loss.backward()
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(start.parameters(), recipe.clip)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, start


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_loop_equals_plain_pytorch(root: Path, stage: int) -> None:
    done = job(root, "done", clip=0.5)
    assert train_one(done, placement(stage), Listener())
    losses, model = plain_training(start_model(done).train(), done.recipe)
    training = read_training(done.path)
    assert training is not None
    assert [loss for _, loss in training["losses"]] == pytest.approx(losses, rel=1e-5)
    expected = dict(model.named_parameters())
    for name, value in weights(done).items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=2e-3, atol=1e-4)


def test_losses_fall_and_the_log_tells_each_step(root: Path) -> None:
    done = job(root, "done", steps=20, warmup_steps=3, peak=3e-2)
    train_one(done, placement(), Listener())
    lines = [json.loads(line) for line in Path(done.log_file).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    rates = [done.recipe.learning_rate(step) for step in range(20)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates)
    assert lines[-1]["tokens"] == done.recipe.tokens
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    assert all(line["grad_norm"] > 0 and line["tokens_per_second"] > 0 for line in lines)


def test_the_folder_is_a_plain_hugging_face_checkpoint(root: Path) -> None:
    done = job(root, "done")
    train_one(done, placement(), Listener())
    model = AutoModelForCausalLM.from_pretrained(done.path)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert is_complete(done.path, done)
    training = read_training(done.path)
    assert training is not None
    assert training["fingerprint"] == done.fingerprint
    assert training["unused_tokens"] == TOKENS % 32
    assert not Path(done.resume_folder).exists()


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (3, "fp32")])
def test_a_stopped_run_ends_as_an_undisturbed_one(root: Path, stage: int, precision: str) -> None:
    whole = job(root, "whole", precision=precision)
    broken = job(root, "broken", precision=precision)
    assert train_one(whole, placement(stage), Listener())
    assert not train_one(broken, placement(stage), Listener(stop_at=512))
    assert not broken.path.exists()
    listener = Listener()
    assert train_one(broken, placement(stage), listener)
    assert listener.heard[0] > 512 and not listener.notes
    assert same(whole, broken)
    steps = [json.loads(line)["step"] for line in Path(broken.log_file).read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32")])
def test_an_averaged_run_is_the_mean_of_runs_that_end_there(
    root: Path, stage: int, precision: str
) -> None:
    recipe = {"schedule": "constant", "precision": precision}
    ends = [job(root, f"to-{steps}", steps=steps, **recipe) for steps in (4, 5, 6)]
    for one in ends:
        train_one(one, placement(stage), Listener())
    mean = job(root, "mean", average_steps=3, **recipe)
    assert mean.fingerprint != ends[-1].fingerprint
    assert not train_one(mean, placement(stage), Listener(stop_at=4 * 256))
    assert train_one(mean, placement(stage), Listener())
    shares = [weights(one) for one in ends]
    for name, value in weights(mean).items():
        expected = sum(one[name].double() for one in shares) / 3
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)


def test_a_killed_process_ends_as_an_undisturbed_one(root: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(root), "2"]
    child = subprocess.run(command, capture_output=True, check=False, cwd=REPOSITORY)
    assert child.returncode == -9, child.stderr.decode()
    whole, killed = job(root, "whole"), job(root, "killed")
    assert not killed.path.exists()
    listener = Listener()
    assert train_one(killed, placement(2), listener)
    assert listener.heard[0] > 512
    assert train_one(whole, placement(2), Listener())
    assert same(whole, killed)


def test_dropout_draws_the_same_after_a_stop(root: Path) -> None:
    config = GPT2Config(
        vocab_size=256, n_positions=64, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.3
    )
    GPT2LMHeadModel(config).save_pretrained(root / "gpt2")
    start = Start(mark="gpt2", folder=str(root / "gpt2"))
    whole, broken = job(root, "whole", start=start), job(root, "broken", start=start)
    train_one(whole, placement(), Listener())
    train_one(broken, placement(), Listener(stop_at=512))
    train_one(broken, placement(), Listener())
    assert same(whole, broken)


@pytest.mark.parametrize("damage", ["weights", "resume", "extra", "tag"])
def test_a_tampered_state_is_never_read(root: Path, damage: str) -> None:
    whole, broken = job(root, "whole"), job(root, "broken")
    train_one(whole, placement(), Listener())
    train_one(broken, placement(), Listener(stop_at=512))
    folder = Path(broken.resume_folder)
    state = next(folder.glob("step-*/*.pt"))
    file = folder / "resume.json"
    if damage == "weights":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(bytes(data))
    elif damage == "extra":
        (state.parent / "mp_rank_01_model_states.pt").write_bytes(b"evil")
    elif damage == "tag":
        file.write_text(file.read_text().replace('"tag": "step-', '"tag": "../step-'))
    else:
        file.write_text(file.read_text()[:-20])
    listener = Listener()
    assert train_one(broken, placement(), listener)
    assert listener.heard[0] == 256
    assert any("starting over" in note for note in listener.notes)
    assert same(whole, broken)


def test_another_stage_or_recipe_starts_over(root: Path) -> None:
    broken = job(root, "broken")
    train_one(broken, placement(0), Listener(stop_at=512))
    listener = Listener()
    train_one(broken, placement(1), listener)
    assert listener.heard[0] == 256
    assert "zero_stage" in listener.notes[0]


def test_a_finished_folder_is_not_trained_again(root: Path) -> None:
    done = job(root, "done")
    train_one(done, placement(), Listener())
    listener = Listener()
    assert train_one(done, placement(), listener)
    assert listener.heard == []
    assert not is_complete(done.path, job(root, "done", peak=1e-4))


def test_any_altered_file_of_a_finished_folder_is_named(root: Path) -> None:
    done = job(root, "done")
    train_one(done, placement(), Listener())
    layout = layout_of(load_model(done.path))
    digest = checkpoint_digest(done.path)
    assert what_is_wrong(done.path, done) is None
    for name in ("model.safetensors", "config.json", "training.json"):
        file = done.path / name
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"10000.0", b"20000.0", 1) + b"\n ")
        if name == "training.json":
            file.write_bytes(whole.replace(b'"steps": 6', b'"steps": 7'))
        assert name in (what_is_wrong(done.path, done) or "")
        if name == "config.json":
            with pytest.raises(CheckpointError, match=r"config\.json was altered"):
                load_flat(done.path, layout, digest=digest)
        file.write_bytes(whole)
    assert is_complete(done.path, done)


def test_a_diverging_run_is_the_users_to_mend(root: Path) -> None:
    bad = job(root, "bad", peak=1e30, schedule="constant", warmup_steps=0, clip=None)
    with pytest.raises(StudyError, match=r"must stay finite.*bad.*lower the learning rate"):
        train_one(bad, placement(), Listener())
    assert not bad.path.exists()
    good = job(root, "good")
    assert train_one(good, placement(), Listener())  # the process is fit for the next job


def test_a_full_disk_is_no_fault_of_the_worker(root: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")

    with pytest.raises(RunError, match=r"room .* No space left on device at model\.safetensors"):
        all_or_none(full)

    def lost() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        all_or_none(lost)


def test_a_resume_state_without_room_is_no_fault_of_the_worker_either(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's writer only says that its position is off."""
    said = "[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"

    def cut_short(engine: DeepSpeedEngine, folder: str, *, tag: str, **_: object) -> None:
        (Path(folder) / tag).mkdir()
        (Path(folder) / tag / "half").write_bytes(b"x")
        raise RuntimeError(said)

    monkeypatch.setattr(DeepSpeedEngine, "save_checkpoint", cut_short)
    here = job(root, "full")
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    where = placement(checkpoint_seconds=1e-9)
    with pytest.raises(RunError, match="must have room for what is trained"):
        train_one(here, where, Listener())
    assert not list(Path(here.resume_folder).glob("step-*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
    with pytest.raises(RuntimeError, match="unexpected pos"):
        train_one(here, where, Listener())


def test_altered_tokens_are_refused(root: Path) -> None:
    prepare_folder(root / "other")
    good = token_slice()
    altered = TrainingJob(
        **{**vars(job(root, "a")), "slices": (type(good)(**{**vars(good), "digest": "0" * 64}),)}
    )
    with pytest.raises(CorpusError, match="were altered"):
        train_one(altered, placement(), Listener())


def test_a_foreign_vocabulary_is_refused(root: Path) -> None:
    small = Start(mark="small", model=job(root, "x").start.model, vocab_size=64, eos_token_id=0)
    with pytest.raises(CorpusError, match="below the model's vocabulary of 64, got 255"):
        train_one(job(root, "a", start=small), placement(), Listener())


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32")]
)
def test_moments_are_carried_and_the_schedule_is_not(
    root: Path, stage: int, precision: str
) -> None:
    """Two runs of constant rate in a row equal one of both, when moments are carried."""
    flat = {"schedule": "constant", "warmup_steps": 0, "precision": precision, "peak": 1e-3}
    seed = job(root, "seed", save_moments=True, kind="seed", **flat)
    train_one(seed, placement(stage), Listener())
    start = Start(
        mark=seed.fingerprint,
        folder=seed.folder,
        moments=str(seed.path / "optimizer.safetensors"),
    )
    warm = job(root, "warm", start=start, carry_moments=True, **flat)
    cold = job(root, "cold", start=start, **flat)
    train_one(warm, placement(stage), Listener())
    train_one(cold, placement(stage), Listener())
    assert is_complete(seed.path, seed)
    again = plain_continuation(root, seed, warm.recipe)
    layout = layout_of(start_model(seed))
    got = flatten(AutoModelForCausalLM.from_pretrained(warm.path), layout)
    far = flatten(AutoModelForCausalLM.from_pretrained(cold.path), layout)
    if precision == "fp32":
        torch.testing.assert_close(got, again, rtol=2e-3, atol=2e-5)
    assert float((got - again).norm()) < 0.2 * float((far - again).norm())
    training = read_training(warm.path)
    assert training is not None
    assert training["effective_learning_rates"][0][1] == 1e-3


def plain_continuation(root: Path, seed: TrainingJob, recipe: Recipe) -> torch.Tensor:
    """Return the flat weights of plain PyTorch over the seed's steps and then the same again."""
    model = start_model(seed).train()
    windows = Windows([text_like(TOKENS)], recipe.sequence_length, recipe.rng_seed, "plain")
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=recipe.betas, eps=recipe.epsilon)
    for step in [*range(recipe.steps), *range(recipe.steps)]:
        ids = torch.from_numpy(windows.batch(step, 8, 0, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return flatten(model, layout_of(model))
