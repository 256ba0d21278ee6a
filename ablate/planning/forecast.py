"""What a study takes on a cluster: time, memory, traffic and cost. A prediction from few numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ablate.planning.hardware import Hardware, hardware_of
from ablate.planning.memory import Memory, memory_of, problems_of
from ablate.planning.places import Places, places_of, problems_of_places
from ablate.planning.preparing import problems_of_texts
from ablate.planning.setting import Setting, Stage
from ablate.planning.stages import stages_of
from ablate.planning.traffic import Traffic, traffic_of
from ablate.planning.training import resume_points, token_seconds
from ablate.planning.work import Work
from ablate.resources import Cluster
from ablate.study import Study


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A study on a cluster, from nothing done to its end.

    `seconds` is the wall time of all stages and `cost` the price of all nodes for that long, None
    where they are not known: a stage does not fit, or no price is given. `device_hours` are those
    of one `device` at the training and scoring rates. `problems` say what does not fit and what to
    do about it.
    """

    hardware: Hardware
    places: Places
    stages: tuple[Stage, ...]
    memory: Memory
    traffic: Traffic
    seconds: float | None
    cost: float | None
    device: str
    devices: int
    device_hours: float
    naive_device_hours: float
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the bytes between nodes among them."""
        found = asdict(self)
        found["traffic"]["network"] = self.traffic.network
        return found


def forecast_of(study: Study, cluster: Cluster, work: Work) -> Forecast:
    """Return what `work` takes on a cluster; this machine is measured where its file leaves off."""
    hardware = hardware_of(study, cluster, work.model)
    places = places_of(cluster, hardware)
    memory = memory_of(study, cluster, work, hardware, places)
    setting = Setting(
        study=study, cluster=cluster, work=work, hardware=hardware, places=places, memory=memory
    )
    stages = stages_of(setting)
    times = [stage.seconds for stage in stages if stage.seconds is not None]
    seconds = sum(times) if len(times) == len(stages) else None
    train = cluster.train
    units = (train.gpus_per_worker or train.threads_per_worker) * train.workers_per_run
    rate = hardware.training * train.workers_per_run / units
    saved = sum(
        resume_points(setting, tokens * token_seconds(setting))
        for tokens in (work.seed_tokens, *work.unit_runs)
    )
    return Forecast(
        hardware=hardware,
        places=places,
        stages=stages,
        memory=memory,
        traffic=traffic_of(study, cluster, work, places, hardware.nodes, saved),
        seconds=seconds,
        cost=_cost(hardware, seconds),
        device="GPU" if places.gpu_training else "CPU thread",
        devices=round(units * max(1, places.lanes)),
        device_hours=work.flops / rate / 3600,
        naive_device_hours=work.naive_flops / rate / 3600,
        problems=(
            *problems_of_places(places, cluster),
            *problems_of_texts(setting),
            *problems_of(memory, cluster, places),
        ),
    )


def _cost(hardware: Hardware, seconds: float | None) -> float | None:
    if hardware.price_per_hour is None or seconds is None:
        return None
    return hardware.price_per_hour * hardware.nodes * seconds / 3600
