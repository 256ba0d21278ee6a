"""The evaluator: summed negative log-likelihoods of fixed token blocks under a live model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ablate.errors import RunError, StudyError
from ablate.evaluate.blocks import Domain, block_lengths, group_blocks, scored_bytes
from ablate.evaluate.head import CPU_TILES, DEVICE_TILES, Tiles, logit_transform, projection_nats
from ablate.evaluate.statistics import DomainScore, domain_score

CPU_BATCH_TOKENS = 2048
DEVICE_BATCH_TOKENS = 32768
HEAD_TOLERANCE = 1e-4  # of the largest logit; bfloat16 rounds at 2^-8
CHECK_TOKENS = 8


class Evaluator:
    """Scores a model on domains; the tokens stay on the model's device between calls.

    `head` says how logits are made: "chunked" from the last hidden states in tiles, or "model"
    where the model does something else with them than its config says (then its own logits are
    used, one window at a time). `score` reads the model's parameters as they are at the call.

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
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else DEVICE_BATCH_TOKENS)
        self.tiles = tiles or (CPU_TILES if on_cpu else DEVICE_TILES)
        _require_fit(model, domains, length)
        self._names = [domain.name for domain in domains]
        self._sizes = [block_lengths(domain.tokens.size, length) for domain in domains]
        self._bytes = [int(scored_bytes(domain, length).sum()) for domain in domains]
        self._groups = group_blocks(domains, length)
        self._tokens = [torch.from_numpy(g.tokens).to(self.device) for g in self._groups]
        self._transform = logit_transform(model)
        self.head: Literal["chunked", "model"] = "chunked" if self._head_is_plain() else "model"

    @property
    def scored_tokens(self) -> int:
        """Return the number of tokens that one `score` scores."""
        return int(sum((sizes - 1).sum() for sizes in self._sizes))

    def score(self) -> dict[str, DomainScore]:
        """Return the score of every domain, in the order given.

        Raises RunError, naming the domain, when a loss is not finite.
        """
        blocks = self.score_blocks()
        return {
            name: domain_score(blocks[name], sizes - 1, text_bytes)
            for name, sizes, text_bytes in zip(self._names, self._sizes, self._bytes, strict=True)
        }

    def score_blocks(self) -> dict[str, np.ndarray]:
        """Return the summed nats of each window, float64 [windows] by domain.

        Raises RunError, naming the domain, when one is not finite.
        """
        sums = [np.empty(sizes.size) for sizes in self._sizes]
        with torch.inference_mode():
            for group, tokens in zip(self._groups, self._tokens, strict=True):
                step = max(1, self.batch_tokens // tokens.shape[1])
                pieces = [
                    self._batch_nats(tokens[start : start + step])
                    for start in range(0, tokens.shape[0], step)
                ]
                nats = torch.cat(pieces).cpu().numpy()
                for place, block, value in zip(group.domains, group.blocks, nats, strict=True):
                    sums[place][block] = value
        for name, values in zip(self._names, sums, strict=True):
            if not np.isfinite(values).all():
                raise RunError(
                    f"losses must be finite on domain '{name}', got {values[~np.isfinite(values)][0]}"
                    "; the model's weights overflow: train with a lower rate, merge with a smaller "
                    "scale, or evaluate with precision fp32"
                )
        return dict(zip(self._names, sums, strict=True))

    def _batch_nats(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the summed nats of windows [batch, length], float64 [batch]."""
        targets = tokens[:, 1:]
        if self.head == "model":
            rows = [self._window_nats(window[None]) for window in tokens]
            return torch.stack(rows).double().sum(1)
        hidden = self._hidden(tokens)[:, :-1]
        nats = projection_nats(
            hidden.reshape(-1, hidden.shape[-1]),
            targets.reshape(-1),
            self._projection(),
            self._transform,
            self.tiles,
        )
        return nats.view(targets.shape).double().sum(1)

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
        tokens = self._tokens[0][:2, :CHECK_TOKENS]
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
