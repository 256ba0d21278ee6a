"""The section about truly trained mixtures: what the proxy is worth on this data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.report import agreement as agreed
from ablate.report.html import Html, details, element, joined, paragraph, section, table
from ablate.report.wording import percent

SHOWN = ("spearman", "decision_accuracy", "regret_share")
DIGITS = {"regret": 4, "regret_share": 1}
GROUPS = (("objective", "objective"), ("in_domain", "in-domain"), ("outside", "outside"))


def agreement_section(
    agreement: Mapping[str, Any] | None, measured_on: str, charts: Mapping[str, Html]
) -> Html:
    """Return proxy against truth: the headline first, the scatter, agreement, calibration.

    Before them all, `measured_on`: that it was measured on something else, where it was.
    """
    title = "Can it be trusted?"
    if agreement is None:
        return section(
            "agreement",
            title,
            paragraph(
                "Not checked on this data: no mixture was trained for real. ",
                element("code", "ablate validate"),
                " trains some, says how well the proxy ranks them, and calibrates it.",
            ),
        )
    controls = sum(bool(row.get("control")) for row in agreed.mixtures(agreement))
    random = f", {controls} of them drawn at random as a control" if controls else ""
    return section(
        "agreement",
        title,
        *([paragraph(element("strong", measured_on))] if measured_on else []),
        paragraph(str(agreement.get("headline") or "No headline was given."), class_="lead"),
        paragraph(f"{agreed.counted(agreement)}{random}."),
        charts["agreement"],
        _summary(agreement),
        details("Every measure", _measures(agreement)),
        details("Spearman within size on every text", _targets(agreement)),
        _calibration(agreement),
    )


def _summary(agreement: Mapping[str, Any]) -> Html:
    heads = ["proxy", *(agreed.MEASURES[measure] for _ in GROUPS for measure in SHOWN)]
    groups = [("", 1), *((title, len(SHOWN)) for _, title in GROUPS)]
    rows: list[list[object]] = [
        [agreed.PROXIES.get(proxy, proxy),
         *(_cell(agreed.summary(agreement, proxy, key, m), m) for key, _ in GROUPS for m in SHOWN)]
        for proxy in agreed.proxies_of(agreement)
    ]  # fmt: skip
    floor = _floor(agreement)
    if any(floor[1:]):
        rows.append(floor)
    caption = "Agreement with truly trained models, within mixture size"
    return table(heads, rows, caption=caption, groups=groups)


def _floor(agreement: Mapping[str, Any]) -> list[object]:
    """Return what two trainings of the same mixture agree: nothing can do better."""
    kinds = {"objective": {"objective"}, "in_domain": {"partition"}, "outside": {"domain"}}
    values = (
        agreed.noise_floor(agreement, kinds[key], measure) for key, _ in GROUPS for measure in SHOWN
    )
    return ["noise floor: trained twice", *("" if v is None else f"{v:.2f}" for v in values)]


def _measures(agreement: Mapping[str, Any]) -> Html:
    rows = [
        [agreed.PROXIES.get(proxy, proxy), group,
         *(_cell(agreed.summary(agreement, proxy, key, m), m) for m in agreed.MEASURES)]
        for proxy in agreed.proxies_of(agreement)
        for key, group in GROUPS
    ]  # fmt: skip
    heads = ["proxy", "on", *agreed.MEASURES.values()]
    return table(heads, rows, caption="Value (95 % interval), within mixture size", texts=2)


def _targets(agreement: Mapping[str, Any]) -> Html:
    proxies = agreed.proxies_of(agreement)
    kinds = agreed.kinds_of(agreement)
    words = {"partition": "held out", "domain": "domain", "objective": ""}
    rows = [
        [target, words.get(kinds[target], ""),
         *(_cell(agreed.within(agreement, target, proxy, "spearman"), "spearman")
           for proxy in proxies)]
        for target in agreed.targets_of(agreement)
    ]  # fmt: skip
    heads = ["text", "kind", *(agreed.PROXIES.get(proxy, proxy) for proxy in proxies)]
    return table(heads, rows, caption="Spearman correlation within mixture size", texts=2)


def _calibration(agreement: Mapping[str, Any]) -> Html:
    found = agreed.calibration(agreement)
    if not found:
        return paragraph("No calibration of trained losses was fitted.")
    rows = [_calibrated(target, fit) for target, fit in found.items()]
    heads = ("text", "model", "mean error", "r.m.s. error", "R²", "in its interval")
    whole = table(
        heads, rows, caption="Predictions of trained loss; errors held out, nats", texts=2
    )
    first = table(heads, rows[:1], caption="Prediction of the trained objective", texts=2)
    return element("div", first, details("On every text", whole)) if len(rows) > 1 else whole


def _calibrated(target: str, fit: Mapping[str, Any]) -> list[object]:
    errors = fit.get("held_out")
    values = [agreed.number(errors.get(key)) if isinstance(errors, Mapping) else None
              for key in ("mae", "rmse", "r2")]  # fmt: skip
    covered, level = agreed.measured(fit.get("coverage")), agreed.number(fit.get("level"))
    stated = f" of {percent(level)} stated" if level is not None else ""
    return [
        target,
        str(fit.get("model") or ""),
        *("" if value is None else f"{value:.4f}" for value in values),
        "" if covered is None else f"{percent(covered[0])}{stated}",
    ]


def _cell(found: agreed.Measured | None, measure: str) -> object:
    """Return a measure with its interval in small below it."""
    if found is None:
        return "–"
    digits = DIGITS.get(measure, 2)
    value, lower, upper = found
    if lower is None or upper is None:
        return f"{value:.{digits}f}"
    return joined(
        [f"{value:.{digits}f}", element("small", f"{lower:.{digits}f} to {upper:.{digits}f}")]
    )


def interval(found: agreed.Measured, measure: str) -> str:
    """Return a measure with its interval in a line."""
    digits = DIGITS.get(measure, 2)
    value, lower, upper = found
    around = (
        "" if lower is None or upper is None else f" ({lower:.{digits}f} to {upper:.{digits}f})"
    )
    return f"{value:.{digits}f}{around}"
