"""Answers as tables of at most 80 columns, for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.corpus import Corpus
from ablate.harmless import visible
from ablate.report.wording import count, objective_kind
from ablate.search.candidates import ENSEMBLE
from ablate.search.leaderboard import APART, Leaderboard
from ablate.search.leaders import leaders_of
from ablate.search.spaces import SubsetSpace
from ablate.search.table import Trial
from ablate.status import Status

WIDTH = 80
SHOWN_PER_SIZE = 3
UNITS_SHOWN = 24
DOMAINS_SHOWN = 10
GOALS_SHOWN = 4
FRONT_SHOWN = 12
LABEL_WIDTH = 17


def console() -> Console:
    """Return the console of standard output, 80 columns wide."""
    return Console(file=sys.stdout, width=WIDTH, highlight=False, soft_wrap=False)


def corpus_table(corpus: Corpus) -> list[Table | Text]:
    """Return the partitions with what was kept and dropped, and the domains."""
    table = plain_table("Partitions")
    for title in ("documents", "tokens", "units", "unused", "empty", "dupl.", "overlap"):
        table.add_column(title, justify="right")
    for name, info in sorted(corpus.partitions.items()):
        dropped = info.dropped
        table.add_row(
            Text(name),
            f"{info.documents:,}",
            count(info.tokens),
            str(info.units),
            count(info.unused_tokens),
            str(dropped.get("empty", 0) + dropped.get("not_text", 0)),
            str(dropped.get("duplicate", 0)),
            str(dropped.get("contaminated", 0)),
        )
    domains = plain_table("Evaluation")
    for title in ("kind", "documents", "tokens", "bytes"):
        domains.add_column(title, justify="right")
    for name, domain in sorted(corpus.domains.items(), key=lambda item: (item[1].kind, item[0])):
        kind = "held out" if domain.kind == "heldout" else "domain"
        row = (kind, f"{domain.documents:,}", count(domain.tokens), count(domain.bytes))
        domains.add_row(Text(name), *row)
    return [table, domains]


def units_table(board: Leaderboard) -> Table:
    """Return the loss of the seed and of each unit (rows) on each text (columns)."""
    names = board.domains[:DOMAINS_SHOWN]
    table = plain_table("Loss of the seed and of each unit (rows) on each text (columns)")
    table.columns[0].no_wrap = True
    width = (WIDTH - LABEL_WIDTH) // max(1, len(names)) - 1
    for name in names:
        table.add_column(Text(_short(name, width)), justify="right", no_wrap=True)
    rows = [row for row in board.trials if row.candidate.kind in ("seed", "unit") and not row.error]
    best = {name: min(row.losses[name] for row in rows) for name in names} if rows else {}
    for row in rows[: UNITS_SHOWN + 1]:
        cells = [
            Text(f"{row.losses[n]:.2f}", style="bold" if row.losses[n] == best[n] else "")
            for n in names
        ]
        table.add_row(Text(_unit_label(row, board)), *cells)
    hidden = max(0, len(rows) - UNITS_SHOWN - 1), len(board.domains) - len(names)
    if any(hidden):
        table.caption = f"{hidden[0]} more units and {hidden[1]} more texts are in trials.parquet"
    return table


def _unit_label(row: Trial, board: Leaderboard) -> str:
    if row.candidate.kind == "seed":
        return "(seed)"
    name = row.partitions[0]
    alone = board.units[name] == 1
    suffix = "" if alone else f" {row.candidate.unit}"
    return _short(name, LABEL_WIDTH - 1 - len(suffix)) + suffix


def ranking(board: Leaderboard, per_size: int = SHOWN_PER_SIZE) -> list[Table | Text]:
    """Return the best mixtures of each size with the mean of their members beside them."""
    by = "by predicted trained loss" if board.is_calibrated else f"objective: {_objective(board)}"
    table = plain_table(f"Best mixtures of each size ({by}, nats per token; lower wins)")
    table.columns[0].header = "size"
    table.add_column("rank", justify="right")
    table.add_column("mixture", ratio=1, overflow="fold")
    titles = ("merge", "members", "ensemble")
    for title in ("predicted", *titles) if board.is_calibrated else titles:
        table.add_column(title, justify="right")
    for size in board.best_of_size:
        rows = [row for row in board.mixtures if row.size == size]
        shown = board.apart(rows, per_size)
        for rank, row in shown:
            table.add_row(
                f"{size}" if rank == 1 else "",
                f"{rank}/{len(rows)}",
                Text(_members(row, board)),
                *_prediction(row, board),
                f"{row.objective:.4f}",
                "" if row.member_objective is None else f"{row.member_objective:.4f}",
                _ensemble(row, board),
                end_section=rank == shown[-1][0],
            )
        if shown[-1][0] > len(shown) or len(shown) < min(per_size, len(rows)):
            table.caption = f"Proportions within {APART:.0%} of those above them are left out."
    return [table, *_pareto(board), Text(reading(board))]


def _objective(board: Leaderboard) -> str:
    """Return what the objective is: a mean, one text's loss, or a weighted sum."""
    which = objective_kind(board.weights)
    if which == "one":
        return f"loss on {_short(next(n for n, w in board.weights.items() if w), 16)}"
    return "mean loss" if which == "even" else "weighted loss"


def _pareto(board: Leaderboard) -> list[Table | Text]:
    """Return the mixtures that none beats on every goal, where the study has goals."""
    if len(board.goals) < 2:
        return []
    front, names = board.pareto(), list(board.goals)[:GOALS_SHOWN]
    table = plain_table(f"Pareto set: {len(front):,} of {len(board.mixtures):,} mixtures, none better "
                   "on every goal")  # fmt: skip
    table.columns[0].header, table.columns[0].ratio = "mixture", 1
    for name in names:
        table.add_column(Text(_short(name, 10)), justify="right", no_wrap=True)
    for row in front[:FRONT_SHOWN]:
        values = board.goal_values(row)[: len(names)]
        table.add_row(Text(_members(row, board)), *(f"{value:.4f}" for value in values))
    hidden = len(front) - FRONT_SHOWN
    rest = f"{hidden:,} more: Leaderboard.pareto(), .plot_pareto()"
    return [Text(), table, *([Text(rest)] if hidden > 0 else [])]


def _merged(board: Leaderboard) -> str:
    if board.merges == (ENSEMBLE,):
        return "the loss of the members' averaged token probabilities (nothing is merged)"
    return "the loss of the merged model"


def reading(board: Leaderboard) -> str:
    """Return what the numbers say and what they cannot say yet, in plain sentences."""
    best = board.best
    proxies = [row for row in board.mixtures if row.member_objective is not None]
    wins = sum(_beats(row) for row in proxies)
    failed = f" {len(board.failed)} trial(s) failed: see trials.parquet." if board.failed else ""
    return (
        f"\nBest of all {len(board.mixtures):,} scored{_by(board)}: {_members(best, board)} "
        f"({_value(best, board)}).{_ties(board)}\n"
        f"'merge' is {_merged(board)}, 'members' the mean loss of the models in it; "
        f"the merge is lower for {wins:,} of {len(proxies):,}.{failed}{_raced(board)}{_agreement(board)}\n"
        f"{_limits(board)}{_validated(board)}"
    )


def _limits(board: Leaderboard) -> str:
    """Return what the numbers can and cannot tell."""
    if board.is_calibrated:
        return (
            "'predicted' is the loss of a model truly trained on the mixture, foretold by what "
            "`validate` calibrated on trained mixtures of this pool: it compares sizes too. Its "
            "error is in agreement.json."
        )
    until = "" if board.validated else " until `validate` has calibrated it"
    return (
        "What this can tell: which mixture is better among those of the same size. What it "
        f"cannot tell{until}: whether a larger or a smaller mixture is better, and the loss of a "
        "model truly trained on it."
    )


def _validated(board: Leaderboard) -> str:
    """Return what `validate` found, where it has run."""
    return f"\n\n`validate` found: {visible(board.validated)}" if board.validated else ""


def _by(board: Leaderboard) -> str:
    return ", by predicted trained loss" if board.is_calibrated else ""


def _value(row: Trial, board: Leaderboard) -> str:
    found = row.predicted_objective
    if not board.is_calibrated or found is None:
        return f"{row.objective:.4f}"
    return f"{found.loss:.4f}, 95% interval {found.lower:.4f} to {found.upper:.4f}"


def _prediction(row: Trial, board: Leaderboard) -> tuple[str, ...]:
    found = row.predicted_objective
    return ("" if found is None else f"{found.loss:.4f}",) if board.is_calibrated else ()


def trial_table(row: Trial) -> Table:
    """Return one model's scores on every domain."""
    title = " + ".join(f"{name} {w:.3g}" for name, w in _weights(row)) or "seed"
    table = plain_table(title)
    for heading in ("loss", "± error", "perplexity", "bits/byte"):
        table.add_column(heading, justify="right")
    for name, score in sorted(row.scores.items()):
        table.add_row(
            Text(name),
            f"{score.loss:.4f}",
            f"{score.stderr:.4f}",
            f"{score.perplexity:.2f}",
            f"{score.bits_per_byte:.4f}",
        )
    if row.objective is not None:
        table.add_section()
        table.add_row("objective", f"{row.objective:.4f}", "", "", "")
    return table


def status_table(status: Status) -> Table:
    """Return what is done and what comes next."""
    table = plain_table("Status")
    table.show_header = False
    table.add_column("value", ratio=1, overflow="fold")
    for name, value in (
        ("workspace", status.workspace),
        ("corpus", f"{status.partitions} partitions" if status.prepared else "not prepared"),
        ("seed", "ready" if status.seed_trained else "not trained"),
        ("units", f"{status.units_trained} of {status.units} trained"),
        ("scored", f"{status.scored:,} models, {status.mixtures_scored:,} of them mixtures"),
        ("validated", f"{status.mixtures_trained:,} mixtures trained for real"),
        ("failed", f"{status.failed:,} trials"),
        ("next", f"ablate {status.next}"),
    ):
        table.add_row(name, Text(value))
    return table


def plain_table(title: str) -> Table:
    """Return a table 80 columns wide without lines, its first column unnamed."""
    table = Table(title=Text(title, style="bold"), title_justify="left", width=WIDTH, box=None)
    table.add_column("", no_wrap=False, overflow="fold")
    table.pad_edge = False
    return table


def _members(row: Trial, board: Leaderboard) -> str:
    """Return a mixture's members, with proportions and merge where these were searched."""
    merge = row.candidate.merge if len(board.merges) > 1 else None
    by = f" [{merge}]" if merge else ""
    if isinstance(board.space, SubsetSpace):
        return " + ".join(row.partitions) + by
    return " + ".join(f"{name} {weight:.3g}" for name, weight in _weights(row)) + by


def _ensemble(row: Trial, board: Leaderboard) -> str:
    found = board.ensemble_of(row)
    return "" if found is None or found.objective is None else f"{found.objective:.4f}"


def _ties(board: Leaderboard) -> str:
    """Return how many mixtures the evaluated text cannot tell from the best."""
    leaders = leaders_of(board)
    if leaders is None:
        return ""
    if board.is_calibrated:
        return f" The intervals of {leaders.others:,} other(s) reach it."
    bound = "" if leaders.exact else "at most "
    return f" On this much text, {bound}{leaders.others:,} other(s) cannot be told from it (95%)."


def _raced(board: Leaderboard) -> str:
    """Return how many mixtures a race stopped, and what share of the tokens all took."""
    stops = [row.stopped for row in board.stopped if row.stopped is not None]
    merges = [row for row in board.mixtures if row.candidate.kind == "proxy"]
    if not stops or not merges:
        return ""
    full = sum(score.tokens for score in merges[0].scores.values())
    spent = len(merges) + sum(stop.tokens for stop in stops) / full
    return (
        f"\nThe race stopped {len(stops):,} more mixtures early, behind the leader; all took "
        f"{spent / (len(merges) + len(stops)):.0%} of the tokens that full scores take."
    )


def _agreement(board: Leaderboard) -> str:
    """Return what the ensemble column is, and how alike it ranks."""
    if board.merges == (ENSEMBLE,) or not any(map(board.ensemble_of, board.mixtures)):
        return ""
    what = "\n'ensemble' averages the units' token probabilities instead of their parameters"
    agreement = board.ensemble_agreement
    if agreement is None:
        return f"{what}."
    return f"{what}; within a size it ranks like the merge with Spearman {agreement:.2f}."


def _beats(row: Trial) -> bool:
    return (
        row.objective is not None
        and row.member_objective is not None
        and row.objective < row.member_objective
    )


def _weights(row: Trial) -> Sequence[tuple[str, float]]:
    return row.candidate.mixture.weights if row.candidate.mixture else ()


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
