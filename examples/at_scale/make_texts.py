"""Write stand-ins for 500 bodies of text beside study.yaml: one short document of each."""

from __future__ import annotations

import json
from pathlib import Path

PARTITIONS = 500
TEXT = "A stand-in for a body of text that is much longer than this. " * 4


def main(folder: Path) -> None:
    """Write the texts that study.yaml names."""
    folder.mkdir(exist_ok=True)
    rows = [{"partition": f"p{number:03d}", "text": TEXT} for number in range(PARTITIONS)]
    for name, of in (("partitions", rows), ("seed", rows[:1]), ("reference", rows[:1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))


if __name__ == "__main__":
    main(Path(__file__).parent / "texts")
