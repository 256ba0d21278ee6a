"""The answer of `validate` as tables of at most 80 columns, for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from ablate.tables import plain_table
from ablate.validate.agreement import LEVEL, Agreement
from ablate.validate.statistics import Estimate
from ablate.validate.subjects import OBJECTIVE

ERRORS_SHOWN = 12


def agreement_tables(found: Agreement) -> list[Table | Text]:
    """Return the first line, every proxy's agreement, and the calibration's held-out errors."""
    trainings = sum(len(one.losses) for one in found.trained)
    sizes = sorted({one.subject.size for one in found.trained})
    count = (
        f"{len(found.trained)} mixtures of {', '.join(map(str, sizes))} partitions, "
        f"{trainings} trainings."
    )
    parts: list[Table | Text] = [Text(found.headline), Text(), _proxies(found), Text(count)]
    if found.noise_floor:
        parts.append(Text(_noise(found)))
    if found.fits:
        parts += [Text(), _errors(found)]
    return parts


def _proxies(found: Agreement) -> Table:
    table = plain_table(
        "Agreement with trained mixtures of the same size (objective: of all sizes)"
    )
    table.columns[0].header = "proxy or baseline"
    for title in ("in-domain", "outside", "objective", "accuracy", "regret"):
        table.add_column(title, justify="right")
    for name in found.proxies:
        summary, overall = found.summary[name], found.tables[OBJECTIVE][name].overall
        table.add_row(
            Text(name),
            _number(summary.get("in_domain"), "spearman"),
            _number(summary.get("outside"), "spearman"),
            _number(overall, "spearman"),
            _number(overall, "decision_accuracy", "{:.0%}"),
            _number(overall, "regret_share", "{:.0f}%"),
        )
    table.caption = (
        "Spearman within a size, mean over texts | objective over all sizes: Spearman, pairs "
        "ordered alike, loss given up in % of the spread"
    )
    return table


def _errors(found: Agreement) -> Table:
    table = plain_table("Predicting the trained loss (nats per token), mixtures left out")
    table.columns[0].header = "text"
    for title in ("error", "of spread", "R2", "in interval", "model"):
        table.add_column(title, justify="right")
    for name, fit in list(found.calibrated.items())[: ERRORS_SHOWN + 1]:
        errors, spread = fit.errors(LEVEL), found.spread(name)
        table.add_row(
            Text(name),
            f"{errors.root_mean_square:.3f}",
            f"{errors.root_mean_square / spread:.0%}" if spread else "",
            "" if errors.r2 is None else f"{errors.r2:.2f}".replace("-0.00", "0.00"),
            "" if errors.coverage.value is None else f"{errors.coverage.value:.0%}",
            Text(getattr(fit, "model", "")),
        )
    return table


def _noise(found: Agreement) -> str:
    values = [
        estimate.value
        for target, by_measure in found.noise_floor.items()
        if target != OBJECTIVE and (estimate := by_measure["spearman"]).value is not None
    ]
    if not values:
        return "Noise floor: undefined with so few mixtures of a size."
    mean = sum(values) / len(values)
    return f"Noise floor: two trainings of the same mixtures rank alike with Spearman {mean:.2f}."


def _number(of: Mapping[str, Estimate] | None, measure: str, form: str = "{:.2f}") -> str:
    value = None if of is None else of[measure].value
    return "" if value is None else form.format(value)
