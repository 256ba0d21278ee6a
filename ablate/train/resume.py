"""Resume states: DeepSpeed's checkpoint, made atomic, checked, and read without running any code.

DeepSpeed unpickles what it finds. Here its files go through torch's weights-only reader, which
builds tensors, plain values and the three DeepSpeed classes below, and calls nothing else.

A state is a folder `step-<n>` beside `resume.json`, which is written last, names the step, and
holds the SHA-256 of every file. Only the newest is kept.
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from ablate.errors import WorkspaceError
from ablate.stores import fetched, forget, is_mirrored, kept, machine_mark
from ablate.train import together
from ablate.train.average import WeightAverage
from ablate.train.zero import ZeroEngine
from ablate.workspace import file_digest, read_json, write_json

RESUME_FILE = "resume.json"
LEAST_ROOM = 1 << 20  # bytes: what a disk has left where a state did not fit

STATE_TYPES = (ZeroStageEnum, LossScaler, fragment_address)


class _PlainStates(TorchCheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's reader and writer of files, which reads them without running code."""

    def load(self, path: str, map_location: Any = None) -> Any:
        """Return a file's state; raise pickle.UnpicklingError when it asks for anything else."""
        with torch.serialization.safe_globals(list(STATE_TYPES)):
            return torch.load(path, map_location=map_location, weights_only=True)


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A state to go on from: `step` steps are done, in `seconds` of training."""

    step: int
    seconds: float
    tag: str = ""


def save(
    engine: ZeroEngine,
    average: WeightAverage | None,
    folder: Path,
    point: ResumePoint,
    identity: dict[str, Any],
) -> None:
    """Write a state; every worker calls it. The one before is removed when this one is whole."""
    tag, writes = f"step-{point.step}", _writes(folder)
    if writes:
        shutil.rmtree(folder / tag, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    if together.workers() == 1:
        together.all_or_none(lambda: _write(engine, average, folder, tag))
    else:  # DeepSpeed's own exchanges are inside: no other may come between them
        _write(engine, average, folder, tag)
        together.all_of(None)  # every worker's part is there before they are listed
    files = together.all_or_none(lambda: _kept_files(folder, tag) if writes else {})
    if is_mirrored(folder):
        files = {name: digest for part in together.all_of(files) for name, digest in part.items()}
    body = {
        "tag": tag,
        "step": point.step,
        "seconds": point.seconds,
        "identity": identity,
        "files": files,
    }
    together.all_or_none(lambda: _finish(folder, body))
    if writes:
        for old in folder.glob("step-*"):
            if old.name != tag:
                shutil.rmtree(old, ignore_errors=True)
        for script in folder.glob("zero_to_*.py"):  # DeepSpeed's converters; not needed here
            script.unlink()


def _write(engine: ZeroEngine, average: WeightAverage | None, folder: Path, tag: str) -> None:
    """Write DeepSpeed's files and the average.

    Raises OSError where the disk has no room, which torch does not say.
    """
    try:
        engine.engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
        if average is not None:
            average.save(folder / tag)
    except (RuntimeError, OSError) as error:
        room = shutil.disk_usage(folder).free
        shutil.rmtree(folder / tag, ignore_errors=True)
        if isinstance(error, OSError) or room > LEAST_ROOM:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


def _finish(folder: Path, body: dict[str, Any]) -> None:
    """Write resume.json, which makes a state whole; the store then has no other any more."""
    if together.rank() == 0:
        write_json(folder / RESUME_FILE, body)
        for old in folder.glob("step-*"):
            if old.name != body["tag"]:
                forget(old)


def _writes(folder: Path) -> bool:
    """Return whether this worker handles files: worker 0, or with mirrors the first at each.

    Every worker calls it.
    """
    if not is_mirrored(folder):
        return together.rank() == 0
    marks = together.all_of(machine_mark(folder))
    return marks.index(marks[together.rank()]) == together.rank()


def _kept_files(folder: Path, tag: str) -> dict[str, str]:
    """Return the digest of each file of a state that lies here, after it was kept in the store."""
    files = sorted(path for path in kept(folder / tag).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def load(
    engine: ZeroEngine,
    average: WeightAverage | None,
    folder: Path,
    identity: dict[str, Any],
    note: Callable[[str], None],
) -> ResumePoint | None:
    """Bring `engine` and `average` to the state in `folder`; None when none there may be used.

    Every worker calls it; worker 0 decides, and with mirrors the first worker at each has a say. A
    state of another job, worker count or ZeRO stage, or one with a file that does not match its
    digest, is noted and left: training starts over.
    """
    writes = _writes(folder)

    def usable() -> ResumePoint | None:
        return _usable(fetched(folder), identity, note) if writes else None

    mine = together.all_or_none(usable)
    point = together.tell(mine)
    if is_mirrored(folder) and any(together.all_of(writes and mine != point)):
        return None
    if point is not None:
        engine.engine.checkpoint_engine = _PlainStates()
        engine.engine.load_checkpoint(
            str(folder), tag=point.tag, load_lr_scheduler_states=False, load_module_strict=True
        )
        if average is not None:
            average.load(folder / point.tag)
    return point  # type: ignore[no-any-return]


def _usable(
    folder: Path, identity: dict[str, Any], note: Callable[[str], None]
) -> ResumePoint | None:
    file = folder / RESUME_FILE
    try:
        body = read_json(file)
    except WorkspaceError as error:
        note(f"starting over: {error}")
        return None
    if body is None:
        return None
    problem = _problem(folder, body, identity)
    if problem is not None:
        note(f"starting over: the resume state {folder} {problem}")
        return None
    return ResumePoint(step=int(body["step"]), seconds=float(body["seconds"]), tag=body["tag"])


def _problem(folder: Path, body: dict[str, Any], identity: dict[str, Any]) -> str | None:
    wanted = {"tag": str, "step": int, "seconds": (int, float), "identity": dict, "files": dict}
    for key, kind in wanted.items():
        if not isinstance(body.get(key), kind):  # type: ignore[arg-type]
            return f"has no valid '{key}' in {RESUME_FILE}"
    changed = [key for key in identity if body["identity"].get(key) != identity[key]]
    if changed:
        return f"belongs to another {', '.join(changed)}"
    tag = body["tag"]
    if tag != f"step-{body['step']}":
        return f"names the folder {tag!r}"
    there = {str(p.relative_to(folder)) for p in (folder / tag).rglob("*") if p.is_file()}
    if not there or there != set(body["files"]):
        return f"has other files than {RESUME_FILE} names in {tag}"
    for name, digest in body["files"].items():
        if file_digest(folder / name) != digest:
            return f"was altered: {name} does not match its digest"
    for name in body["files"]:
        if (code := _code_in(folder / name)) is not None:
            return f"was altered: {name} {code}"
    return None


def _code_in(file: Path) -> str | None:
    """Return what else than tensors and plain values a state asks for, None for nothing."""
    try:
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        return "is no state of tensors"
    more = set(asked) - {f"{kind.__module__}.{kind.__qualname__}" for kind in STATE_TYPES}
    return f"would run {sorted(more)[0]}" if more else None


def remove(folder: Path) -> None:
    """Delete a run's resume state; every worker calls it."""
    if _writes(folder):
        shutil.rmtree(folder, ignore_errors=True)
        forget(folder)
