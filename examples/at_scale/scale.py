"""The inputs of the simulation, and what follows from them in closed form.

Two ways to score mixtures of many large units:

* whole units: every unit has a home node and is copied to the evaluators that ask for it; an
  evaluator is one GPU;
* layer slices: a group of nodes holds every unit, each GPU the same layers of all of them; a GPU
  merges its slice, and the activations of the evaluated tokens travel from GPU to GPU.

Bytes, seconds, FLOP/s, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def given(value: float, text: str) -> float:
    """Return a field with a default and a line of help."""
    return field(default=value, metadata={"help": text})  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that the numbers follow from; each is an option of `simulate.py`."""

    parameters: float = given(6.74e9, "parameters of a model (Llama 2 7B, arXiv 2307.09288)")
    layers: float = given(32, "its layers")
    width: float = given(4096, "its hidden size")
    weight_bytes: float = given(2, "bytes of a stored weight: 2 for bfloat16, 4 for float32")
    activation_bytes: float = given(2, "bytes of an activation on its way")
    units: float = given(500, "units of the pool")
    members: float = given(8, "units of a mixture")
    tokens: float = given(1_048_576, "evaluated tokens of a trial, all domains together")
    micro_tokens: float = given(32_768, "tokens of one forward pass")
    nodes: float = given(125, "nodes")
    gpus: float = given(8, "GPUs of a node")
    tflops: float = given(400, "sustained TFLOP/s of a GPU: 40 % of an H100's 989 in bfloat16")
    node_memory_gb: float = given(2000, "memory of a node, GB")
    cache_gb: float = given(400, "memory of a node for copies of other nodes' units, GB")
    network_gbps: float = given(400, "Gbit/s of a node's network, each way")
    link_gb: float = given(25, "GB/s from memory to one GPU (PCIe 4.0 x16; 5.0 has twice that)")
    memory_gb: float = given(200, "GB/s that all GPUs of a node read from its memory together")
    nvlink_gb: float = given(400, "GB/s between neighbouring GPUs of a node")
    storage_gb: float = given(2, "GB/s at which one node reads the shared storage")
    ceremony: float = given(0.045, "seconds between two trials of an evaluator (Tune and Ray)")
    lost_per_hour: float = given(0.0, "times that a node vanishes, per hour of a node")
    boot: float = given(300, "seconds until a lost node is replaced, its memory empty")

    @property
    def unit(self) -> float:
        """Return the bytes of one unit."""
        return self.parameters * self.weight_bytes

    @property
    def pool(self) -> float:
        """Return the bytes of all units."""
        return self.units * self.unit

    @property
    def network(self) -> float:
        """Return the bytes a second of a node's network, each way."""
        return self.network_gbps * 1e9 / 8

    @property
    def cached_units(self) -> int:
        """Return how many copies a node keeps."""
        return int(self.cache_gb * 1e9 / self.unit)

    @property
    def nodes_per_group(self) -> int:
        """Return the nodes over which the layers are spread: a GPU has one layer at least."""
        return int(self.layers // self.gpus)

    @property
    def stages(self) -> int:
        """Return the GPUs that a model is spread over."""
        return self.nodes_per_group * int(self.gpus)

    @property
    def groups(self) -> int:
        """Return how many whole models the nodes score at once in slices."""
        return int(self.nodes) // self.nodes_per_group


def compute_seconds(one: Inputs) -> float:
    """Return the seconds of one GPU to score a trial's tokens: 2 N per token."""
    return 2 * one.parameters * one.tokens / (one.tflops * 1e12)


def merge_seconds(one: Inputs) -> float:
    """Return the seconds of one GPU to read all members of a mixture while its neighbours do too."""
    rate = min(one.link_gb, one.memory_gb / one.gpus) * 1e9
    return one.members * one.unit / rate


def hit_rate(one: Inputs) -> float:
    """Return the chance that a node has a unit: its own ones, and copies under equal popularity."""
    return min(1.0, 1 / one.nodes + one.cached_units / one.units)


def whole_unit_bytes(one: Inputs) -> float:
    """Return the bytes between nodes for a trial of whole units."""
    return one.members * one.unit * (1 - hit_rate(one))


def sliced_bytes(one: Inputs) -> float:
    """Return the bytes between nodes for a trial in slices: activations at each border of nodes."""
    borders = one.nodes_per_group - 1
    return borders * one.tokens * one.width * one.activation_bytes


def break_even_tokens(one: Inputs) -> float:
    """Return the evaluated tokens at which both designs move as many bytes between nodes."""
    a_token = sliced_bytes(one) / one.tokens
    return whole_unit_bytes(one) / a_token


def whole_unit_limit(one: Inputs, moved: float | None = None) -> float:
    """Return the trials an hour that whole units cannot exceed: by GPUs, or by nodes' networks.

    `moved` are the bytes between nodes per trial where they are known: evaluators of a node that
    wait for the same unit share its way, so a few less than `whole_unit_bytes`.
    """
    busy = merge_seconds(one) + compute_seconds(one) + one.ceremony
    by_gpus = one.nodes * one.gpus / busy
    moved = whole_unit_bytes(one) if moved is None else moved
    by_network = one.nodes * one.network / moved if moved else by_gpus
    return 3600 * min(by_gpus, by_network)


def sliced_limit(one: Inputs) -> float:
    """Return the trials an hour of slices: the slowest GPU or border between nodes sets the pace."""
    gpu = (merge_seconds(one) + compute_seconds(one)) / one.stages
    border = one.tokens * one.width * one.activation_bytes / one.network
    return 3600 * one.groups / max(gpu, border)


def whole_unit_memory(one: Inputs) -> float:
    """Return the bytes of a node for its own units and its copies."""
    return one.pool / one.nodes + one.cached_units * one.unit


def sliced_memory(one: Inputs) -> float:
    """Return the bytes of a node for its layers of every unit."""
    return one.pool / one.nodes_per_group


def whole_unit_reload(one: Inputs) -> float:
    """Return the seconds until a replaced node has its own units again."""
    return one.boot + one.pool / one.nodes / (one.storage_gb * 1e9)


def sliced_reload(one: Inputs) -> float:
    """Return the seconds until a replaced node has its slices again, from a group that has them."""
    source = one.network if one.groups > 1 else one.storage_gb * 1e9
    return one.boot + sliced_memory(one) / source


def sliced_availability(one: Inputs) -> float:
    """Return the share of time that a group works when any of its nodes may vanish."""
    return 1 / (1 + one.lost_per_hour * one.nodes_per_group * sliced_reload(one) / 3600)
