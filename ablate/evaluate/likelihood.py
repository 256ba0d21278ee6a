"""The evaluator: summed negative log-likelihoods of fixed token blocks under a live model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ablate.errors import RunError, StudyError, did_you_mean
from ablate.evaluate.blocks import Domain, Group, block_lengths, group_blocks, scored_bytes
from ablate.evaluate.device import lacks_memory, release_memory
from ablate.evaluate.head import CPU_TILES, DEVICE_TILES, Tiles, logit_transform, projection_nats
from ablate.evaluate.statistics import DomainScore, domain_score

CPU_BATCH_TOKENS = 1024  # activations of small models then stay in the L2 cache
DEVICE_BATCH_TOKENS = 32768
HEAD_TOLERANCE = 1e-4  # of the largest logit; bfloat16 rounds at 2^-8
CHECK_TOKENS = 8


def default_batch_tokens(on_gpu: bool) -> int:
    """Return how many tokens a forward pass holds where nothing is asked for."""
    return DEVICE_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS


class Evaluator:
    """Scores a model on domains; the tokens stay on the model's device between calls.

    `head` says how logits are made: "chunked" from the last hidden states in tiles, or "model"
    where the model does something else with them than its config says (then its own logits are
    used, one window at a time). `score` reads the model's parameters as they are at the call. A
    batch that memory does not hold is halved, for good; scores depend on it by rounding only.

    Raises StudyError when windows are longer than the model's positions or tokens lie outside
    its vocabulary; CorpusError for a domain with fewer than two tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        domains: Sequence[Domain],
        *,
        length: int,
        batch_tokens: int | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        self.model = model.eval()
        self.device = model.device
        self.length = length
        on_cpu = self.device.type == "cpu"
        self.batch_tokens = batch_tokens or default_batch_tokens(not on_cpu)
        self._first_batch_tokens = self.batch_tokens
        self.tiles = tiles or (CPU_TILES if on_cpu else DEVICE_TILES)
        _require_fit(model, domains, length)
        self._domains = {domain.name: domain for domain in domains}
        self._grouped: dict[tuple[str, ...], list[tuple[Group, torch.Tensor]]] = {}
        self._transform = logit_transform(model)
        self.head: Literal["chunked", "model"] = "chunked" if self._head_is_plain() else "model"

    @property
    def scored_tokens(self) -> int:
        """Return the number of tokens that one `score` of all domains scores."""
        return int(sum((self._sizes(name) - 1).sum() for name in self._domains))

    def score(self, domains: Sequence[str] | None = None) -> dict[str, DomainScore]:
        """Return the scores of the named domains, or of all.

        Raises RunError, naming the domain, when a loss is not finite; StudyError for an unknown
        name.
        """
        return self.scores_of(self.score_blocks(domains))

    def score_blocks(self, domains: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return the summed nats of each window, float64 [windows] by domain.

        Raises RunError, naming the domain, when one is not finite; StudyError for an unknown name.
        """
        names = tuple(self._domains if domains is None else domains)
        sums = self._block_sums(names, None)
        require_finite(sums)
        return sums

    def score_some(self, blocks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the summed nats of the windows `blocks[domain]` [n], float64 [n], in their order.

        Raises RunError, naming the domain, when one is not finite; StudyError for an unknown name.
        """
        sums = self._block_sums(tuple(blocks), blocks)
        found = {name: sums[name][wanted] for name, wanted in blocks.items()}
        require_finite(found)
        return found

    def _block_sums(
        self, names: tuple[str, ...], blocks: Mapping[str, np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        """Return nats [windows] by domain; NaN for windows that are not in `blocks`."""
        sums = {name: np.full(self._sizes(name).size, np.nan) for name in names}
        for group, pieces in self._passes(names, blocks):
            nats = torch.cat([piece.double().sum(1) for piece in pieces]).cpu().numpy()
            for place, block, value in zip(group.domains, group.blocks, nats, strict=True):
                sums[names[place]][block] = value
        return sums

    def scores_of(self, nats: Mapping[str, np.ndarray]) -> dict[str, DomainScore]:
        """Return the scores of summed nats of all windows, `nats[domain]` [windows]."""
        return {
            name: domain_score(
                values,
                self._sizes(name) - 1,
                int(scored_bytes(self._domains[name], self.length).sum()),
            )
            for name, values in nats.items()
        }

    def windows_of(self, name: str) -> int:
        """Return the number of windows of a domain."""
        return int(self._sizes(name).size)

    def token_nats(self, domains: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return the nats of every scored token in window order, float32 [tokens] by domain.

        Raises RunError, naming the domain, when one is not finite; StudyError for an unknown name.
        """
        names = tuple(self._domains if domains is None else domains)
        found: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
        for group, pieces in self._passes(names):
            nats = torch.cat(pieces).cpu().numpy()
            for place, block, values in zip(group.domains, group.blocks, nats, strict=True):
                found[names[place]][int(block)] = values
        joined = {
            name: np.concatenate([blocks[number] for number in sorted(blocks)])
            for name, blocks in found.items()
        }
        require_finite(joined)
        # Rounding may leave a certain token a hair below zero.
        return {name: np.maximum(values, 0.0) for name, values in joined.items()}

    def score_tokens(self, nats: dict[str, np.ndarray]) -> dict[str, DomainScore]:
        """Return the scores that `token_nats` adds up to, by domain."""
        scores = {}
        for name, values in nats.items():
            tokens = self._sizes(name) - 1
            starts = np.concatenate([[0], np.cumsum(tokens)[:-1]])
            sums = np.add.reduceat(values.astype(np.float64), starts)
            text_bytes = int(scored_bytes(self._domains[name], self.length).sum())
            scores[name] = domain_score(sums, tokens, text_bytes)
        return scores

    def batches(self, domain: str) -> list[torch.Tensor]:
        """Return a domain's windows on the model's device, int64 [batch, length] each."""
        return [
            batch
            for _, tokens in self._windows((domain,))
            for batch in tokens.split(self._rows(tokens.shape[1]))
        ]

    def _passes(
        self, names: tuple[str, ...], blocks: Mapping[str, np.ndarray] | None = None
    ) -> Iterator[tuple[Group, list[torch.Tensor]]]:
        """Yield the windows of the named domains (or some of them) with their token nats."""
        with torch.inference_mode():
            for group, tokens in self._windows(names):
                if blocks is not None:
                    group, tokens = _some(group, tokens, [blocks[name] for name in names])
                if not len(tokens):
                    continue
                yield group, self._nats_of(tokens)

    def _nats_of(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return the nats of windows in batches; one that memory does not hold is halved."""
        pieces: list[torch.Tensor] = []
        done = 0
        while done < len(tokens):
            rows = self._rows(tokens.shape[1])
            try:
                pieces.append(self._batch_nats(tokens[done : done + rows]))
            except RuntimeError as error:
                self.halve(tokens.shape[1], error)
            else:
                done += rows
        return pieces

    def _rows(self, length: int) -> int:
        return max(1, self.batch_tokens // length)

    def halve(self, length: int, error: RuntimeError) -> None:
        """Halve the batch of windows of `length` for good, now that memory did not hold it.

        Raises `error` when it is about something else, RunError when one window is too much.
        """
        if not lacks_memory(error):
            raise error
        rows = self._rows(length)
        if rows == 1:
            raise RunError(
                f"an evaluator's memory must hold one window of {length} tokens beside the model, "
                "got too little; lower evaluate.sequence_length, or give trials more memory in "
                "the cluster file"
            ) from error
        self.batch_tokens = rows // 2 * length
        release_memory(self.device)

    def limit_batch(self, halvings: int) -> None:
        """Score in batches that are halved so many times at least: a process died of the whole."""
        self.batch_tokens = min(self.batch_tokens, max(1, self._first_batch_tokens >> halvings))

    def _sizes(self, name: str) -> np.ndarray:
        domain = self._domains.get(name)
        if domain is None:
            raise StudyError(
                f"a scored domain must be one of the study's, got '{name}'; "
                f"{did_you_mean(name, self._domains)}"
            )
        return block_lengths(domain.tokens.size, self.length)

    def _windows(self, names: tuple[str, ...]) -> list[tuple[Group, torch.Tensor]]:
        """Return the windows of the named domains, kept on the device for the next call."""
        if names not in self._grouped:
            groups = group_blocks([self._domains[name] for name in names], self.length)
            with torch.inference_mode(False):  # a slope's backward pass reads them too
                self._grouped[names] = [
                    (group, torch.from_numpy(group.tokens).to(self.device)) for group in groups
                ]
        return self._grouped[names]

    def _batch_nats(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the nats of windows [batch, length], float32 [batch, length - 1]."""
        targets = tokens[:, 1:]
        if self.head == "model":
            return torch.stack([self._window_nats(window[None]) for window in tokens])
        hidden = self._hidden(tokens)[:, :-1]
        nats = projection_nats(
            hidden.reshape(-1, hidden.shape[-1]),
            targets.reshape(-1),
            self._projection(),
            self._transform,
            self.tiles,
        )
        return nats.view(targets.shape)

    def _window_nats(self, window: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=window, use_cache=False).logits[0, :-1]
        pieces = [
            nn.functional.cross_entropy(part.float(), goal, reduction="none")
            for part, goal in zip(
                logits.split(self.tiles.rows), window[0, 1:].split(self.tiles.rows), strict=True
            )
        ]
        return torch.cat(pieces)

    def _hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        output = self.model.base_model(input_ids=tokens, use_cache=False)
        return output[0]  # type: ignore[no-any-return]

    def _projection(self) -> nn.Linear:
        head = self.model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise TypeError(f"a plain linear head was expected, got {type(head).__name__}")
        return head

    def _head_is_plain(self) -> bool:
        """Return whether hidden states, projection and transform give the model's own logits."""
        if self.model.base_model is self.model or not isinstance(
            self.model.get_output_embeddings(), nn.Linear
        ):
            return False
        tokens = self._windows(tuple(self._domains))[0][1][:2, :CHECK_TOKENS]
        with torch.inference_mode():
            expected = self.model(input_ids=tokens, use_cache=False).logits.float()
            hidden = self._hidden(tokens)
            head = self._projection()
            if hidden.shape[-1] != head.weight.shape[1]:
                return False
            got = nn.functional.linear(hidden, head.weight, head.bias).float()
            got = got if self._transform is None else self._transform(got)
        if got.shape != expected.shape:
            return False
        slack = HEAD_TOLERANCE if hidden.dtype == torch.float32 else 2.0**-7
        return bool((got - expected).abs().max() <= slack * expected.abs().max().clamp(min=1e-30))


def _some(
    group: Group, tokens: torch.Tensor, wanted: Sequence[np.ndarray]
) -> tuple[Group, torch.Tensor]:
    """Return the windows of a group whose blocks are in `wanted[domain]`; all: the same tensor."""
    kept = np.zeros(len(group.blocks), dtype=bool)
    for place, blocks in enumerate(wanted):
        kept |= (group.domains == place) & np.isin(group.blocks, blocks)
    if kept.all():
        return group, tokens
    rows = torch.from_numpy(np.flatnonzero(kept)).to(tokens.device)
    some = Group(tokens=group.tokens[kept], domains=group.domains[kept], blocks=group.blocks[kept])
    return some, tokens[rows]


def require_finite(nats: Mapping[str, np.ndarray]) -> None:
    """Raise RunError, naming the domain, when one of `nats[domain]` is not finite."""
    for name, values in nats.items():
        if not np.isfinite(values).all():
            raise RunError(
                f"losses must be finite on domain '{name}', got "
                f"{values[~np.isfinite(values)][0]}; the model's weights overflow: train with "
                "a lower rate, merge with a smaller scale, or evaluate with precision fp32"
            )


def _require_fit(model: PreTrainedModel, domains: Sequence[Domain], length: int) -> None:
    if length < 2 or not domains:
        raise ValueError(f"length >= 2 and one domain at least must be given, got {length}")
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise StudyError(
            f"evaluate.sequence_length must be at most the model's {positions} positions, got "
            f"{length}; set evaluate.sequence_length={positions}"
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    for domain in domains:
        highest = int(domain.tokens.max(initial=0))
        if highest >= vocabulary:
            raise StudyError(
                f"token ids must lie in the model's vocabulary of {vocabulary}, domain "
                f"'{domain.name}' has {highest}; use the tokenizer that belongs to the model"
            )
