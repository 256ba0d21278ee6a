"""Write stand-ins for 500 bodies of text beside study.yaml: short documents, in many shards."""

from __future__ import annotations

import json
from pathlib import Path

PARTITIONS = 500
SHARDS, SEED_SHARDS = 2500, 100
TEXT = "A stand-in for a body of text that is much longer than this. " * 4


def main(folder: Path, shards: int = SHARDS, seed_shards: int = SEED_SHARDS) -> None:
    """Write the texts that study.yaml names: a document or more in each shard."""
    folder.mkdir(exist_ok=True)
    files: dict[str, list[str]] = {f"seed-{number:03d}": ["seed"] for number in range(seed_shards)}
    files["reference"] = ["reference"]
    for number in range(max(shards, PARTITIONS)):
        rows = files.setdefault(f"partitions-{number % shards:04d}", [])
        rows.append(f"p{number % PARTITIONS:03d}")
    for name, partitions in files.items():
        rows = [json.dumps({"partition": one, "text": TEXT}) for one in partitions]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / "texts")
