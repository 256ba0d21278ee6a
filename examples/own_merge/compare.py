"""Which merge ranks mixtures as true runs do? `python compare.py FOLDER [KEY=VALUE]...`.

FOLDER is one in which ../fields_of_study has run: its trained mixtures of three partitions or more are
merged by each method here, and scored. Nothing is trained. `search.merge.method` names a function of
one's own as it does in a study file; this folder, the script's, is where it is found.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import ablate
from ablate.engine import score_study

MERGES = {
    "linear": "{method: linear}",
    "median": "{method: 'my_merge:median'}",
    "trimmed 0.25": "{method: 'my_merge:trimmed', options: {share: 0.25}}",
}


def main(folder: Path, overrides: Sequence[str] = ()) -> None:
    """Print how each merge agrees with the trained models of the same mixtures."""
    table = pd.read_parquet(folder / "work" / "even" / "trials.parquet")
    trained = table[(table.kind == "trained") & (table["size"] >= 3)]
    texts = [name for name in table.columns if name.startswith("loss/")]
    truth = trained[texts].to_numpy()  # [mixtures, texts], nats per token
    rows = []
    for label, merge in MERGES.items():
        asked = [*overrides, "workspace=work/even", f"search.merge={merge}"]
        study = ablate.load_study(folder / "study.yaml", asked)
        losses = []
        for row in trained.itertuples():
            shares = dict(zip(row.partitions, row.weights, strict=True))
            scored = score_study(study, ablate.Mixture.of(shares))
            losses.append([scored.losses[name.removeprefix("loss/")] for name in texts])
        rows.append({"merge": label, **agreement(np.array(losses), truth)})
    print(f"{len(trained)} trained mixtures of three partitions or more, {len(texts)} texts")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def agreement(losses: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the mean loss of the merges, [mixtures, texts], and how they rank beside the truth."""
    columns = range(truth.shape[1])
    each = [spearmanr(losses[:, text], truth[:, text]).statistic for text in columns]
    whole = spearmanr(losses.mean(axis=1), truth.mean(axis=1)).statistic
    return {
        "mean loss": float(losses.mean()),
        "trained": float(truth.mean()),
        "Spearman, each text": float(np.mean(each)),
        "of mean": float(whole),
    }


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except ablate.UserError as error:
        sys.exit(f"compare: {error}")
