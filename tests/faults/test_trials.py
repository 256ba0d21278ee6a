"""Trials that raise, hang, die, or give no number; evaluators without memory; a small store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.faults.disturbing import LONGER, Run, injections, numbers
from tests.faults.troubled_merge import ALWAYS, CALLS, TROUBLE

pytestmark = pytest.mark.faults
OWN = (*LONGER, "search.merge.method=tests.faults.troubled_merge:merge")
CLUSTER = "cpus: 2\ntrial: {retries: 2, timeout_seconds: 10}\n"
REASONS = {
    "raise": "a merge of the user's own went wrong",
    "hang": "longer than trial.timeout_seconds",
    "kill": "died",
    "exit": "died",
    "nan": "must fill `out` with finite numbers",
    "memory": "MemoryError",
}


@pytest.fixture(scope="module")
def pool(undisturbed: Any) -> Path:
    """A trained and searched study with a merge of its own; its journal is the tests'."""
    return Path(undisturbed(OWN))


def search(work: Path, place: Path, trouble: str, *, always: bool) -> Run:
    """Search the pool anew, in trouble."""
    (work / "trials.jsonl").unlink()
    calls = place / "calls"
    environment = {TROUBLE: trouble, CALLS: str(calls), **({ALWAYS: "1"} if always else {})}
    run = Run(work.parent, "search", OWN, environment=environment, cluster=CLUSTER)
    run.finish()
    assert calls.stat().st_size > 2
    injections[f"a trial's {trouble}"] += calls.stat().st_size - 2 if always else 1
    return run


@pytest.mark.parametrize("trouble", ["raise", "hang", "kill", "exit", "memory"])
def test_trouble_that_passes_changes_no_number(trouble: str, pool: Path, place: Path) -> None:
    reference = numbers(pool)
    search(pool, place, trouble, always=False)
    assert numbers(pool) == reference


def test_a_loss_that_is_no_number_fails_its_trial_alone(pool: Path, place: Path) -> None:
    reference = numbers(pool)
    search(pool, place, "nan", always=False)
    rows = pq.read_table(pool / "trials.parquet").to_pylist()
    assert [row for row in rows if row["error"] is not None and REASONS["nan"] in row["error"]]
    Run(pool.parent, "search", OWN).finish()  # asked once more, it is well
    assert numbers(pool) == reference


@pytest.mark.parametrize("trouble", list(REASONS))
def test_trouble_that_stays_fails_its_trials_by_name_and_no_others(
    trouble: str, pool: Path, place: Path
) -> None:
    reference = numbers(pool)
    run = search(pool, place, trouble, always=True)
    rows = pq.read_table(pool / "trials.parquet").to_pylist()
    failed = [row for row in rows if row["error"] is not None]
    assert failed and all(REASONS[trouble] in row["error"] for row in failed), failed
    good = [row for row in rows if row["error"] is None and row["kind"] in ("seed", "unit")]
    before = [row for row in reference["rows"] if row["kind"] in ("seed", "unit")]
    assert [row["objective"] for row in good] == [row["objective"] for row in before]
    assert "Traceback" not in run.said
    Run(pool.parent, "search", OWN).finish()
    assert numbers(pool) == reference


def test_a_pool_larger_than_the_object_store(place: Path) -> None:
    """Six models of 34 MB in a store of 80 MB: what does not fit is spilled, and read back."""
    wide = (
        "model.overrides={hidden_size: 512, intermediate_size: 1024, num_hidden_layers: 3}",
        "train.batch_tokens=1024",
        "evaluate.tokens_per_domain=500",
    )
    roomy = Run(place, overrides=wide, cluster="{cpus: 2, object_store_gb: 1}")
    roomy.finish()
    reference = numbers(roomy.work)
    (roomy.work / "trials.jsonl").unlink()
    tight = Run(place, "search", overrides=wide, cluster="{cpus: 2, object_store_gb: 0.08}")
    tight.finish()
    injections["object store full"] += 1
    assert numbers(tight.work) == reference
