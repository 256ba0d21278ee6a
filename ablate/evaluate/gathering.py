"""Gather what some merges ask of a unit model (Fisher information, Gram matrices), once per unit.

A pass of the unit's model over the first sequences of its own training text; kept in the workspace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ablate.corpus import Corpus, TokenFile, read_tokens
from ablate.errors import StudyError, WorkspaceError
from ablate.evaluate.device import pick_device
from ablate.merge import Statistics
from ablate.merge.statistics import (
    Grams,
    fisher_diagonal,
    gram_matrices,
    read_statistics,
    write_statistics,
)
from ablate.models.checkpoint import load_flat
from ablate.models.layout import bind, layout_of
from ablate.models.load import load_model
from ablate.models.pool import ModelPool
from ablate.progress import note
from ablate.stores import fetched, here
from ablate.study import Study

SEQUENCES = 256  # of the unit's text; RegMean's own choice is of this order (arXiv 2212.09849)
FOLDER = "statistics"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One unit's model, given by its folder (below `root`) and digest, and the text it is run on."""

    root: Path
    folder: str
    model_digest: str
    fingerprint: str
    kind: Statistics
    file: TokenFile
    start: int
    stop: int
    length: int
    gpus: int
    trust_remote_code: bool

    @property
    def path(self) -> Path:
        """Return where the statistics are kept."""
        return self.root / FOLDER / f"{self.fingerprint}-{self.kind}.safetensors"

    @property
    def marks(self) -> dict[str, Any]:
        """Return what the statistics are gathered from."""
        return {
            "model": self.model_digest,
            "tokens": self.file.digest,
            "range": [self.start, self.stop],
            "length": self.length,
        }


def unit_sample(
    member: tuple[str, int],
    study: Study,
    corpus: Corpus,
    pool: ModelPool,
    kind: Statistics,
    gpus: int = 0,
) -> Sample:
    """Return one unit's model and the part of its text from which its statistics are gathered.

    The model runs on a GPU where one of `gpus` is there, else on one CPU thread.

    Raises StudyError for a unit whose training text is not in the corpus.
    """
    name, index = member
    info, unit = corpus.partitions.get(name), pool.by_member[member]
    if info is None:
        raise StudyError(
            f"search.merge.method '{kind}' must have every unit's training text, got none for "
            f"'{name}', which was brought in; use linear, ties or dare"
        )
    length = study.train.sequence_length
    start = index * study.corpus.unit_tokens
    stop = min(start + SEQUENCES * length, start + study.corpus.unit_tokens, info.train.tokens)
    return Sample(
        root=Path(pool.root),
        folder=unit.folder,
        model_digest=unit.digest,
        fingerprint=unit.fingerprint,
        kind=kind,
        file=info.train,
        start=start,
        stop=stop,
        length=length,
        gpus=gpus,
        trust_remote_code=study.model.trust_remote_code,
    )


def gathered(sample: Sample) -> torch.Tensor | Grams:
    """Return a unit's statistics: those kept, or new ones, which are then kept.

    A file that is damaged or was gathered from something else is reported and made again. Raises
    CheckpointError or WorkspaceError when model or text are not what they should be.
    """
    sample = replace(sample, root=here(sample.root))
    try:
        found = read_statistics(sample.path, sample.kind, sample.marks)
    except WorkspaceError as error:
        note(f"statistics are gathered again: {error}")
        sample.path.unlink()
        found = None
    if found is not None:
        return found[0]
    statistics = _gather(sample)
    write_statistics(sample.path, sample.kind, statistics, sample.marks)
    return statistics


def _gather(sample: Sample) -> torch.Tensor | Grams:
    torch.set_num_threads(1)
    fetched(sample.root / sample.file.path)
    tokens = read_tokens(sample.root, sample.file, sample.start, sample.stop)
    sequences = len(tokens) // sample.length
    rows = torch.from_numpy(tokens[: sequences * sample.length].astype("int64"))
    folder = sample.root / sample.folder
    model = load_model(folder, trust_remote_code=sample.trust_remote_code)
    layout = layout_of(model)
    flat = bind(model, layout, torch.float32, pick_device(sample.gpus))
    flat.copy_(torch.from_numpy(load_flat(folder, layout, digest=sample.model_digest).copy()))
    gather = fisher_diagonal if sample.kind == "fisher" else gram_matrices
    return gather(model.eval(), layout, rows.view(sequences, sample.length))
