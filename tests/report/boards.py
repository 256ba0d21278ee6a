"""Small studies made up from numbers: boards, corpora and agreement of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ablate.corpus import Corpus, DomainInfo, PartitionInfo, TokenFile, TokenizerInfo
from ablate.evaluate.statistics import DomainScore
from ablate.mixture import Mixture
from ablate.models.pool import ModelPool, SeedModel, UnitModel
from ablate.report import ReportContent, gather
from ablate.search.candidates import Candidate
from ablate.search.leaderboard import Leaderboard
from ablate.search.spaces import Partitions, make_space
from ablate.search.table import Predicted, Trial
from ablate.study import SpaceSettings, Study

TOKENS = 10_000
TEXTS = ("reference", "readmes")
PLAN = {"parameters": 1_300_000, "naive_flops": 6e14, "mixtures": 127, "trials": 127}


class Maker:
    """Scores mixtures by made-up rules: every partition has a worth on every domain."""

    def __init__(
        self, names: Sequence[str], texts: Sequence[str] = TEXTS, heldout: int = 3, groups: int = 32
    ) -> None:
        self.names = sorted(names)
        self.heldout = self.names[:heldout]
        self.domains = sorted([*texts, *self.heldout])
        self.texts = list(texts)
        self.groups = groups
        self.rng = np.random.default_rng(0)
        shape = (len(self.names), len(self.domains))
        self.worth = self.rng.normal(-0.1, 0.25, shape)
        for row, name in enumerate(self.names):
            if name in self.domains:
                self.worth[row, self.domains.index(name)] = -1.5
        self.hardness = self.rng.normal(0, 0.5, (len(self.domains), groups))
        self.units = {name: 1 + (place % 3 == 0) for place, name in enumerate(self.names)}

    def losses(self, weights: np.ndarray) -> np.ndarray:
        """Return losses [domains] of a mixture [names]: a good member counts more than its share."""
        present = weights[weights > 0] ** 0.7
        return 5.0 + present @ self.worth[weights > 0] - 0.01 * len(present) ** 0.5

    def trial(self, mixture: Mixture | None, kind: str = "proxy", unit: int | None = None) -> Trial:
        """Return a scored row."""
        shares = dict(mixture.weights) if mixture else {}
        weights = np.array([shares.get(name, 0.0) for name in self.names])
        losses = self.losses(weights) + (0.02 * unit if unit else 0.0)
        noise = self.rng.normal(0, 0.02, self.hardness.shape)
        noise -= noise.mean(axis=1, keepdims=True)
        per = TOKENS / self.groups
        nats = per * (
            losses[:, None] + self.hardness - self.hardness.mean(1, keepdims=True) + noise
        )
        scores = {
            name: DomainScore(
                nats=float(row.sum()), tokens=TOKENS, bytes=4 * TOKENS, stderr=0.05,
                groups=tuple(row.tolist()),
            )
            for name, row in zip(self.domains, nats, strict=True)
        }  # fmt: skip
        key = f"{kind}-{mixture.key() if mixture else ''}-{unit}"
        return Trial(
            candidate=Candidate(
                key=key, kind=kind, method="linear", merge="linear" if kind == "proxy" else None,
                unit=unit, mixture=mixture, seed_coefficient=0.0, coefficients=(), tokens=1000,
            ),
            scores=scores,
            objective=sum(scores[name].loss for name in self.texts) / len(self.texts),
            member_objective=5.2 if kind == "proxy" else None,
            merge_seconds=0.01, evaluate_seconds=0.1, error=None,
        )  # fmt: skip

    def base(self) -> list[Trial]:
        """Return the seed and the units."""
        rows = [self.trial(None, "seed")]
        for name, count in self.units.items():
            rows += [self.trial(Mixture.uniform([name]), "unit", unit) for unit in range(count)]
        return rows

    def board(self, mixtures: Sequence[Mixture], kind: str = "subsets") -> Leaderboard:
        """Return a board of the seed, the units and the mixtures of two units or more."""
        rows = self.base()
        for mixture in mixtures:
            if sum(self.units[name] for name in mixture.partitions) > 1:
                rows.append(self.trial(mixture))
        return self.leaderboard(rows, kind)

    def leaderboard(self, rows: Sequence[Trial], kind: str = "subsets") -> Leaderboard:
        """Return a board of rows."""
        facts = dict.fromkeys(self.names, 1000)
        space = make_space(
            SpaceSettings(kind=kind),
            Partitions(units=self.units, tokens=facts, available=facts),
            "micro",
        )
        return Leaderboard(
            trials=tuple(sorted(rows, key=Trial.sort_key)),
            domains=tuple(self.domains),
            space=space,
            merges=("linear",),
            units=self.units,
            weights=dict.fromkeys(self.texts, 1 / len(self.texts)),
            group_tokens={
                name: np.full(self.groups, TOKENS / self.groups) for name in self.domains
            },
        )

    def subsets(self) -> list[Mixture]:
        """Return every subset, under micro weighting."""
        return [
            Mixture.by_units(members, self.units)
            for size in range(1, len(self.names) + 1)
            for members in combinations(self.names, size)
        ]

    def some(self, count: int) -> list[Mixture]:
        """Return random subsets, the whole set among them."""
        found = {tuple(self.names)}
        while len(found) < count:
            share = self.rng.uniform(0.02, 0.5)
            members = tuple(n for n in self.names if self.rng.random() < share)
            if members:
                found.add(members)
        return [Mixture.by_units(members, self.units) for members in sorted(found)]

    def corpus(self) -> Corpus:
        """Return counts that fit the board."""
        file = TokenFile(path="x", tokens=1000, digest="d")
        return Corpus(
            fingerprint="c0c0c0c0c0c0",
            tokenizer=TokenizerInfo(fingerprint="t0t0t0t0t0t0", vocab_size=4096, eos_token_id=0),
            partitions={
                name: PartitionInfo(
                    name=name, slug="s", documents=1200, tokens=250_000, bytes=1_000_000,
                    units=units, unit_tokens=(120_000,) * units, unit_digests=("d",) * units,
                    unused_tokens=10_000, dropped={"empty": 1, "duplicate": 7, "contaminated": 3},
                    unchecked=0, heldout_documents=12, heldout_dropped=1, train=file,
                )
                for name, units in self.units.items()
            },
            domains={
                name: DomainInfo(
                    name=name, kind="domain" if name in self.texts else "heldout", documents=4,
                    tokens=TOKENS, bytes=4 * TOKENS, tokens_file=file,
                )
                for name in self.domains
            },
            seed=None, seed_dropped={}, inputs={},
        )  # fmt: skip

    def pool(self, root: str = "") -> ModelPool:
        """Return a pool whose models are nowhere."""
        return ModelPool(
            seed=SeedModel(fingerprint="5eed", folder="models/seed-5eed", digest="d"),
            units=tuple(
                UnitModel(partition=name, index=index, fingerprint=f"{place}-{index}",
                          folder=f"models/unit-{place}-{index}", digest="d", tokens=120_000)
                for place, (name, count) in enumerate(self.units.items())
                for index in range(count)
            ),
            layout_fingerprint="1a", tokenizer="t0", root=root,
        )  # fmt: skip

    def study(self, name: str = "a study") -> Study:
        """Return a study that names the partitions."""
        tree = {
            "name": name,
            "workspace": "workspace",
            "corpus": {"sources": [{"path": "x.txt", "partition": name} for name in self.names]},
            "model": {"path": "model"},
        }
        return Study.model_validate(tree)

    def content(
        self, board: Leaderboard, agreement: dict[str, Any] | None = None, name: str = "a study",
        root: str = "",
    ) -> ReportContent:  # fmt: skip
        """Return a report's content."""
        return gather(
            board, study=self.study(name), corpus=self.corpus(), pool=self.pool(root), plan=PLAN,
            agreement=agreement, texts={name: f"mark of {name}" for name in self.domains},
        )  # fmt: skip

    def agreement(self, board: Leaderboard, count: int = 16) -> dict[str, Any]:
        """Return what validating some of a board's mixtures might have found."""
        rows = [row for row in board.mixtures if row.size > 1]
        rows = rows[:: max(1, len(rows) // count)][:count]
        kinds = {name: "domain" if name in self.texts else "partition" for name in self.domains}
        targets = {"objective": "objective", **kinds}
        measures = {
            "pearson": [0.95, 0.9, 0.98], "spearman": [0.93, 0.85, 0.97], "kendall": [0.8, 0.7, 0.9],
            "decision_accuracy": [0.91, 0.86, 0.95], "top_overlap": [0.6, None, None],
            "best_quarter": None, "regret": [0.004, 0.0, 0.02], "regret_share": [1.2, 0.0, 4.8],
        }  # fmt: skip
        each = {"all": measures, "within": measures, "by_size": {"2": measures}}
        proxies = ("merge", "ensemble", "members_mean", "seed", "tokens")
        return {
            "schema_version": 1,
            "headline": "The merge ranks better than every baseline: Spearman 0.93 within a size.",
            "targets": targets,
            "weights": dict(board.weights),
            "domains": {name: f"mark of {name}" for name in self.domains},
            "mixtures": [self._trained(row, targets, place) for place, row in enumerate(rows)],
            "agreement": {target: dict.fromkeys(proxies, each) for target in targets},
            "summary": {
                proxy: {"in_domain": measures, "outside": measures, "objective": measures}
                for proxy in proxies
            },
            "noise_floor": {target: {"spearman": [0.97, 0.9, 0.99]} for target in targets},
            "calibration": {
                target: {
                    "model": "affine in ensemble", "coverage": [0.94, 0.8, 0.99], "level": 0.95,
                    "held_out": {"mae": 0.012, "rmse": 0.016, "r2": 0.91},
                }
                for target in targets
            },
        }  # fmt: skip

    def _trained(self, row: Trial, targets: dict[str, str], place: int) -> dict[str, Any]:
        losses = {**row.losses, "objective": row.objective or 0.0}
        noise = self.rng.normal(0, 0.01, len(targets))
        true = {t: 0.9 * losses[t] + 0.3 + e for t, e in zip(targets, noise, strict=True)}
        guess = {t: 0.9 * losses[t] + 0.3 for t in targets}
        return {
            "name": " + ".join(row.partitions[:4]), "partitions": list(row.partitions),
            "weights": [w for _, w in row.candidate.mixture.weights] if row.candidate.mixture else [],
            "size": row.size, "tokens": 240_000, "rng_seed": 0, "control": place % 5 == 4,
            "trained": true,
            "proxies": {
                "merge": losses, "ensemble": {t: v - 0.03 for t, v in losses.items()},
                "members_mean": {t: v + 0.2 for t, v in losses.items()},
                "seed": dict.fromkeys(targets, 5.0), "tokens": 240_000,
            },
            "predicted": {t: [v, v - 0.03, v + 0.03] for t, v in guess.items()},
        }  # fmt: skip


def calibrated(board: Leaderboard) -> Leaderboard:
    """Return the board with predictions, by which other mixtures are best."""
    from dataclasses import replace

    def predicted(row: Trial) -> Trial:
        if row.objective is None or row.candidate.kind == "seed":
            return row
        value = row.objective - 0.02 * row.size
        found = Predicted(loss=value, lower=value - 0.02, upper=value + 0.02)
        return replace(row, predicted_objective=found)

    return replace(board, trials=tuple(map(predicted, board.trials)))
