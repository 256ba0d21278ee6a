"""Lost processes and hangs are counted apart, and a search says which trials failed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ablate.cluster import tune
from tests.search.test_trial_deaths import config, die, make

LATE = "it took longer than trial.timeout_seconds"


def test_what_hangs_after_lost_processes_is_asked_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(tune, "time", SimpleNamespace(monotonic=lambda: now[0]))
    asked, asker, errors = make(retries=2, timeout_seconds=30)
    for name, seconds in (("t0", 1), ("t1", 31), ("t2", 1), ("t3", 31)):
        assert not asked.heard
        config(asker, name)
        errors.on_trial_start(0, [], SimpleNamespace(trial_id=name))
        now[0] += seconds
        die(errors, name, tmp_path, "ActorDiedError: its node was lost")
    assert [scored.error for scored in asked.heard] == [LATE]
    asker.say_failures()
    assert f"trials failed, the seed: {LATE}; run it again" in capsys.readouterr().err


def test_a_search_without_failures_says_none(capsys: pytest.CaptureFixture[str]) -> None:
    _, asker, _ = make()
    asker.say_failures()
    assert not capsys.readouterr().err
