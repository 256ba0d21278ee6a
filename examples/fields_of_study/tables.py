"""The paper's tables in the study's own numbers: `python tables.py FOLDER`, once run.py has run.

Everything is read from `trials.parquet`, one row for each scored model.

    merged perplexity    exp(loss) of the parameter average of a mixture's unit models
    trained perplexity   exp(loss) of the one model that was trained on the text of those units
    in-domain            the partitions' held-out splits;  outside: text that no partition holds

A correlation is over the trained mixtures of one size: taken for one text at a time, of which the
mean over texts is shown, and *of mean*, of each mixture's mean perplexity over the texts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

MEASURES = {
    "Pearson": lambda x, y: float(pearsonr(x, y).statistic),
    "Spearman": lambda x, y: float(spearmanr(x, y).statistic),
}
LEAST = 3  # fewer mixtures have no correlation worth a number


def print_tables(folder: Path) -> None:
    """Print the tables of both views."""
    even = read_table(folder / "work" / "even")
    uneven = read_table(folder / "work" / "uneven")
    print("\n1. Merged against trained perplexity, one unit a partition")
    print(shown(agreement(even, {"merge": "micro", "mean of members": "members"})))
    print("\n2. The same for whole fields of unlike size")
    proxies = {"micro merge": "micro", "macro merge": "macro", "mean of members": "members"}
    print(shown(agreement(uneven, proxies)))
    print("\n3. What it cost (beside the seed, which both ways need)")
    print(shown(cost(even)))


def read_table(workspace: Path) -> pd.DataFrame:
    """Return trials.parquet with the members of each row as a tuple, `members`."""
    file = workspace / "trials.parquet"
    table = pd.read_parquet(file) if file.exists() else None
    if table is None or "trained" not in set(table.kind):
        sys.exit(f"tables: trained mixtures must stand in {file}, got none; let run.py finish")
    table = table[table.error.isna()].reset_index(drop=True)
    return table.assign(members=[tuple(names) for names in table.partitions])


def agreement(table: pd.DataFrame, proxies: dict[str, str]) -> pd.DataFrame:
    """Return the correlations of each proxy with trained perplexities, by mixture size.

    `proxies[label]` is micro or macro, for merges of that weighting, or members, for the mean
    perplexity of the units themselves.
    """
    rows = []
    for place, texts in kinds_of_text(table).items():
        for label, kind in proxies.items():
            for size, pairs in matched(table, kind).groupby("size"):
                if len(pairs) >= LEAST:
                    row = {"texts": place, "proxy": label, "size": size, "mixtures": len(pairs)}
                    rows.append(row | correlations(pairs, texts))
    return pd.DataFrame(rows)


def correlations(pairs: pd.DataFrame, texts: Sequence[str]) -> dict[str, float]:
    """Return both measures, for each text and for the mean over texts."""
    proxy = np.stack([pairs[f"proxy/{name}"] for name in texts])  # [texts, mixtures]
    trained = np.stack([pairs[f"trained/{name}"] for name in texts])
    found = {}
    for name, measure in MEASURES.items():
        each = [measure(x, y) for x, y in zip(proxy, trained, strict=True)]
        found[name] = float(np.mean(each))
    for name, measure in MEASURES.items():
        found[f"{name} of mean"] = measure(proxy.mean(axis=0), trained.mean(axis=0))
    return found


def matched(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return one row for each trained mixture: its trained and its proxy perplexities."""
    texts = [name for names in kinds_of_text(table).values() for name in names]
    losses = [f"loss/{name}" for name in texts]
    units = table[table.kind == "unit"]
    merges = table[(table.kind == "proxy") & (table["merge"] == "linear")]
    rows = []
    for _, trained in weighted(table[table.kind == "trained"], units, "micro").iterrows():
        members = trained.members
        if kind == "members":
            proxies = units[units.members.isin([(name,) for name in members])]
        else:
            proxies = weighted(merges[merges.members == members], units, kind)
        if proxies.empty:  # never merged, or for other evaluation texts
            continue
        proxy = np.exp(proxies[losses].to_numpy(float)).mean(axis=0)
        truth = np.exp(trained[losses].to_numpy(float))
        rows.append(
            {
                "members": members,
                "size": trained["size"],
                **{f"proxy/{name}": value for name, value in zip(texts, proxy, strict=True)},
                **{f"trained/{name}": value for name, value in zip(texts, truth, strict=True)},
            }
        )
    return pd.DataFrame(rows)


def weighted(rows: pd.DataFrame, units: pd.DataFrame, weighting: str) -> pd.DataFrame:
    """Return the rows whose weights are those of `weighting`: by units (micro), or equal (macro)."""
    counts = units.members.value_counts()

    def fits(members: Iterable[str], weights: np.ndarray) -> bool:
        shares = np.array([counts[(name,)] if weighting == "micro" else 1 for name in members])
        return np.allclose(weights, shares / shares.sum())

    kept = [fits(row.members, row.weights) for row in rows.itertuples()]
    return rows[np.array(kept, dtype=bool)]


def kinds_of_text(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the evaluated texts: in-domain those of partitions, outside the others."""
    texts = [name.removeprefix("loss/") for name in table.columns if name.startswith("loss/")]
    partitions = {name for members in table.members for name in members}
    return {
        "in-domain": [name for name in texts if name in partitions],
        "outside": [name for name in texts if name not in partitions],
    }


def cost(table: pd.DataFrame) -> pd.DataFrame:
    """Return trainings and trained tokens: of the units, of the check, and of the naive way.

    A partition is in comb(n - 1, k - 1) of the mixtures of k of n partitions.
    """
    units, trained = table[table.kind == "unit"], table[table.kind == "trained"]
    tokens, n = int(units.tokens.sum()), units.members.nunique()
    most = int(table["size"].max())
    joined = sum(comb(n - 1, k - 1) for k in range(1, most + 1))
    rows = {
        "one model for each unit": (len(units), tokens),
        "true runs, to check it": (len(trained), int(trained.tokens.sum())),
        f"naive: all mixtures of 1 to {most} of {n}": (
            sum(comb(n, k) for k in range(1, most + 1)),
            tokens * joined,
        ),
        f"naive: all subsets of {n}": (2**n - 1, tokens * 2 ** (n - 1)),
    }
    return pd.DataFrame(
        [
            {"": name, "trainings": runs, "tokens": count, "times": count / tokens}
            for name, (runs, count) in rows.items()
        ]
    )


def shown(table: pd.DataFrame) -> str:
    """Return a table as text."""
    return table.to_string(index=False, float_format=lambda value: f"{value:.2f}")


if __name__ == "__main__":
    print_tables(Path(sys.argv[1]))
