"""What the driver makes of a trial whose process died: once more, in a smaller batch, or given up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablate.cluster import tune
from ablate.cluster.tune import _Asker, _Watch
from ablate.resources import Cluster, TrialResources
from ablate.search.candidates import Candidate, seed_candidate
from ablate.search.conversation import Pause
from ablate.search.questions import Question

LOW = "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on memory."


@dataclass
class Asked:
    """Questions with one question, which remembers its answer."""

    heard: list[Any] = field(default_factory=list)
    answers: int = 0
    left: int = 1
    domain_marks: Any = None
    stages: Any = None
    best: None = None

    def next(self) -> Question | Pause:
        if not self.left:
            return Pause.DONE
        self.left -= 1
        pool = SimpleNamespace(seed=SimpleNamespace(fingerprint="f"))
        candidate = seed_candidate(pool)  # type: ignore[arg-type]
        return Question(candidate=candidate, domains=("a",))

    def identities(self, candidate: Candidate) -> list[str]:
        return []

    def answered(self, question: Question, scored: Any) -> None:
        self.heard.append(scored)


def die(errors: _Watch, name: str, tmp_path: Path, text: str) -> None:
    file = tmp_path / "error.txt"
    file.write_text(text)
    trial = SimpleNamespace(trial_id=name, error_file=str(file))
    errors.on_trial_error(0, [], trial)


def make(**limits: Any) -> tuple[Asked, _Asker, _Watch]:
    asked = Asked()
    asker = _Asker(asked, lambda *_: None, 1, TrialResources(**limits))  # type: ignore[arg-type]
    return asked, asker, _Watch(asker, Cluster())


def config(asker: _Asker, name: str) -> dict[str, Any]:
    found = asker.suggest(name)
    assert isinstance(found, dict)
    return found


def test_a_process_ended_for_its_memory_is_tried_again_in_half_the_batch(tmp_path: Path) -> None:
    asked, asker, errors = make(retries=2)
    assert config(asker, "t0")["halvings"] == 0
    die(errors, "t0", tmp_path, LOW)
    assert config(asker, "t1")["halvings"] == 1
    die(errors, "t1", tmp_path, "ray.exceptions.ActorDiedError: The actor died unexpectedly")
    assert config(asker, "t2")["halvings"] == 1  # a lost node is no reason for a smaller batch
    die(errors, "t2", tmp_path, LOW)
    assert [scored.error for scored in asked.heard] == [LOW]


def test_what_hangs_is_tried_twice_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: now[0])
    now = [0.0]
    monkeypatch.setattr(tune, "time", clock)
    asked, asker, errors = make(retries=5, timeout_seconds=30)
    for name in ("t0", "t1"):
        config(asker, name)
        errors.on_trial_start(0, [], SimpleNamespace(trial_id=name))
        now[0] += 31
        die(errors, name, tmp_path, "ActorDiedError: exit code 1")
    assert [scored.error for scored in asked.heard] == ["it took longer than trial.timeout_seconds"]
