"""A plan as tables of at most 80 columns, for people."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ablate.planning import Plan, Work
from ablate.planning.forecast import Forecast
from ablate.report.wording import count
from ablate.search.choice import large
from ablate.tables import plain_table


def plan_table(plan: Plan) -> list[Table | Text]:
    """Return partitions, work, and what it takes on the nodes."""
    problems = [Text(f"! {problem}", style="bold") for problem in plan.forecast.problems]
    return [
        _partitions(plan.work),
        _work(plan),
        _stages(plan.forecast),
        _nodes(plan.forecast),
        *problems,
    ]


def _partitions(work: Work) -> Table:
    table = plain_table(f"{work.study}: partitions" + ("" if work.exact else " (estimates)"))
    for title in ("documents", "tokens", "units", "unused tokens"):
        table.add_column(title, justify="right")
    for part in work.partitions:
        table.add_row(
            Text(part.name),
            f"{part.documents:,}",
            count(part.tokens),
            str(part.units),
            count(max(0, part.unused_tokens)),
        )
    return table


def _work(plan: Plan) -> Table:
    work, forecast = plan.work, plan.forecast
    ratio = work.naive_flops / max(1, work.flops)
    validation = (
        f"about {work.validation_runs} runs, {count(work.validation_tokens)} tokens, "
        f"{count(work.validation_flops)}FLOP"
        if work.validation_runs
        else "not asked for (validate: null)"
    )
    mixtures = "a continuum of" if work.mixtures is None else large(work.mixtures)
    return _pairs("Work", (
        ("model", f"{count(work.model.parameters)} parameters"),
        ("training", f"{work.runs} runs, {count(work.seed_tokens)} seed tokens + "
         f"{count(sum(work.unit_runs))} unit tokens, {count(work.training_flops)}FLOP"),
        ("search", f"{work.trials:,} of {mixtures} mixtures ({work.algorithm}: {work.why}), "
         f"{work.members:.3g} units each on average"),
        ("scoring", f"{count(work.evaluated_tokens)} tokens a mixture, "
         f"{count(work.search_flops)}FLOP"),
        ("validation", validation),
        ("device time", f"about {duration(forecast.device_hours)} of one {forecast.device} "
         f"({forecast.devices} in use)"),
        ("the naive way", f"train every mixture: {count(work.naive_flops)}FLOP, "
         f"{duration(forecast.naive_device_hours)}: {ratio:.3g} times as much"),
    ))  # fmt: skip


def _stages(forecast: Forecast) -> Table:
    there = forecast.hardware
    table = plain_table(
        f"Wall time on {there.nodes:,} node(s) of {there.cpus} CPUs and {there.gpus} GPUs"
    )
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("rests on", ratio=1)
    for stage in forecast.stages:
        table.add_row(stage.name, _seconds(stage.seconds), Text(stage.basis))
    cost = "no price_per_hour under nodes: no cost"
    if forecast.cost is not None:
        cost = f"cost {forecast.cost:,.2f} at {there.price_per_hour:g} a node and hour"
    table.add_row("all", _seconds(forecast.seconds), Text(cost))
    return table


def _nodes(forecast: Forecast) -> Table:
    memory, traffic, places = forecast.memory, forecast.traffic, forecast.places
    offloaded = f" + {_bytes(memory.worker_host)} offloaded" if memory.worker_host else ""
    kept = f"; members' products {_bytes(memory.evaluator_host)} of the node's memory"
    device = {True: f"of a GPU's {_bytes(memory.gpu)}", False: "of the node's memory"}
    return _pairs("Memory and traffic of a node", (
        ("object store", f"pool {_bytes(memory.pool)} of {_bytes(memory.object_store)}; "
         f"float32, once per node"),
        ("a worker", f"{_bytes(memory.worker)}{offloaded} {device[places.gpu_training]}: weights, "
         "gradients, optimizer by ZeRO stage, activations of a micro batch"),
        ("an evaluator", f"{_bytes(memory.evaluator)} {device[places.gpu_scoring]}: weights, "
         f"activations of a batch{kept if memory.evaluator_host else ''}"),
        ("node memory", f"training {_bytes(memory.training_node)} ({places.workers_per_node} "
         f"workers), search {_bytes(memory.scoring_node)} ({places.evaluators_per_node} "
         f"evaluators) of {_bytes(memory.node)}"),
        ("gradients", f"{_bytes(traffic.step)} sent by a worker in a step; "
         f"{_bytes(traffic.workers)} in all, {_bytes(traffic.workers_between_nodes)} of it between "
         "nodes"),
        ("pool", f"{_bytes(traffic.pool)} between nodes: each unit once to every node"),
        ("workspace", f"{_bytes(traffic.read)} read, {_bytes(traffic.written)} written: models, "
         "resume states"),
    ))  # fmt: skip


def _pairs(title: str, rows: tuple[tuple[str, str], ...]) -> Table:
    table = plain_table(title)
    table.show_header = False
    table.add_column("value", ratio=1)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _bytes(size: float) -> str:
    return f"{count(size)}B"


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else duration(seconds / 3600)


def duration(hours: float) -> str:
    """Return a time as text: seconds, minutes, hours, days or years."""
    if hours < 1 / 30:
        return f"{hours * 3600:.0f} s"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    if hours < 100:
        return f"{hours:,.1f} h"
    days = hours / 24
    return f"{days:,.1f} d" if days < 10_000 else f"{days / 365.25:.3g} years"
