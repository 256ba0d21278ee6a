"""Ask a trained study questions from Python.

    make demo
    .venv/bin/python examples/python_api/explore.py demo/study.yaml

Trains and scores only what the workspace does not have yet.
"""

from __future__ import annotations

import sys

import ablate


def main(path: str) -> None:
    """Print the best mixture of each size, then what happens as one partition's weight grows."""
    study = ablate.load_study(path)
    pool = ablate.train(study)
    board = ablate.search(study, pool)
    for size, row in board.best_of_size.items():
        print(f"best of size {size}: {row.objective:.4f}  {' + '.join(row.partitions)}")

    first, second = board.best_of_size[2].partitions
    for weight in (0.1, 0.3, 0.5, 0.7, 0.9):
        mixture = ablate.Mixture.of({first: weight, second: 1 - weight})
        row = ablate.score(pool, mixture)
        print(f"{weight:.1f} {first} + {1 - weight:.1f} {second}: {row.objective:.4f}")

    frame = board.to_pandas()
    print(frame[frame.kind == "proxy"].nsmallest(5, "objective")[["partitions", "objective"]])


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "demo/study.yaml")
    except ablate.UserError as error:
        sys.exit(f"explore: {error}")
