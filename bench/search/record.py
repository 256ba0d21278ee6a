"""Record a landscape: `python -m bench.search.record STUDY.yaml NAME` after an exhaustive search."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ablate.engine import leaderboard
from ablate.study import load_study
from bench.search.landscapes import FOLDER


def main(study: str, name: str) -> Path:
    """Write FOLDER/name.parquet: one row a subset, members as bits, losses as float32."""
    board = leaderboard(load_study(study))
    names = board.space.names
    rows = sorted(board.mixtures, key=lambda row: _bits(row.partitions, names))
    count = board.space.count()
    if len(rows) != count:
        raise SystemExit(f"every subset must be scored, got {len(rows)} of {count}")
    columns = {"members": pa.array([_bits(row.partitions, names) for row in rows], pa.int32())}
    for domain in board.domains:
        columns[f"loss/{domain}"] = pa.array([row.losses[domain] for row in rows], pa.float32())
    ensembles = [board.ensemble_of(row) for row in rows]
    if None in ensembles:
        raise SystemExit("every subset must have an ensemble row; run `ablate search` once more")
    for domain in board.domains:
        values = [row.losses[domain] for row in ensembles if row is not None]
        columns[f"ensemble/{domain}"] = pa.array(values, pa.float32())
    table = pa.table(columns).replace_schema_metadata({"partitions": "\n".join(names)})
    FOLDER.mkdir(exist_ok=True)
    pq.write_table(table, FOLDER / f"{name}.parquet", compression="zstd")
    return FOLDER / f"{name}.parquet"


def _bits(members: tuple[str, ...], names: tuple[str, ...]) -> int:
    return sum(1 << names.index(name) for name in members)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
