"""Second pass: training text without contaminated documents, as tokens, cut into units."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.corpus.cutting import MOST, NOTED, TrainCut, cut, shorten
from ablate.corpus.encode import EncodedPart, EncodeItem, EncodeRules, encode_piece
from ablate.corpus.job import Making
from ablate.corpus.pack import PackedTrain, TrainPack, pack_train
from ablate.corpus.pieces import SEED, limits_of
from ablate.corpus.protection import Protected
from ablate.corpus.selection import Stream, StreamChoice, parts_of
from ablate.corpus.tokenizer import StudyTokenizer
from ablate.errors import CorpusError
from ablate.progress import note
from ablate.workspace import slug


def encode_sources(
    making: Making,
    choices: Mapping[Stream, StreamChoice],
    tokenizer: StudyTokenizer,
    protected: Protected | None,
) -> dict[Stream, TrainCut]:
    """Return the encoded training text of each partition and the seed, cut to its limits.

    Raises CorpusError when decontamination leaves too little.
    """
    limits = limits_of(making.study)
    items = _items(making, choices)
    rules = EncodeRules(
        tokenizer=tokenizer.text,
        eos_token_id=tokenizer.info.eos_token_id,
        vocab_size=tokenizer.info.vocab_size,
        protected=protected,
    )
    parts: dict[Stream, list[tuple[EncodedPart, int]]] = {}
    encoded = making.map_tasks(encode_piece, items, rules, "tokenize")
    for item, found in zip(items, encoded, strict=True):
        for name, part in found.items():
            parts.setdefault((item.piece.kind, name), []).append((part, item.piece.source))
    cuts = {
        stream: cut(given, {n: most for (kind, n), most in limits.items() if kind == stream[0]})
        for stream, given in parts.items()
    }
    seed: Stream = ("seed", SEED)
    if seed in cuts:
        cuts[seed] = shorten(cuts[seed], making.study.seed.tokens)
    _check(cuts)
    return cuts


def _items(making: Making, choices: Mapping[Stream, StreamChoice]) -> list[EncodeItem]:
    limits = limits_of(making.study)
    return [
        EncodeItem(
            piece=piece,
            fates={
                name: choice.fates[piece.number]
                for name, choice in parts_of(choices, piece.kind)
                if piece.number in choice.fates
            },
            folder=str(making.folder / f"part-{piece.number}"),
            limit=limits[piece.kind, piece.source],
        )
        for piece in making.pieces
        if piece.kind != "domain"
    ]


def _check(cuts: Mapping[Stream, TrainCut]) -> None:
    for (kind, name), found in cuts.items():
        where = "the seed's text" if kind == "seed" else f"partition '{name}'"
        if found.lost > NOTED:
            cause = max(found.causes.items(), key=lambda item: (item[1], item[0]))[0]
            shown = f"{found.lost:.0%} of {where}'s bytes for overlap, most with {cause}"
            if found.lost > MOST:
                raise CorpusError(
                    f"decontamination must leave at least half of a partition, got {shown}; raise "
                    "corpus.decontaminate.max_overlap, drop that domain, or set "
                    "corpus.decontaminate to null"
                )
            note(f"corpus: decontamination drops {shown}")
        if kind == "seed" and found.tokens < 2:
            raise CorpusError("seed.sources must hold text, got none that is kept; add some")


def pack_sources(
    making: Making,
    cuts: Mapping[Stream, TrainCut],
    sizes: Mapping[str, tuple[int, ...]],
    tokenizer: StudyTokenizer,
) -> dict[Stream, PackedTrain]:
    """Write the train file of each partition and the seed; return their digests."""
    items = [
        TrainPack(
            parts=tuple((part.tokens_file, take) for part, take in found.parts),
            unit_tokens=sizes[name] if kind == "partition" else (),
            path=str(making.final(SEED if kind == "seed" else slug(name)) / "train.arrow"),
        )
        for (kind, name), found in cuts.items()
    ]
    packed = making.map_tasks(pack_train, items, tokenizer.info.vocab_size, "pack")
    return dict(zip(cuts, packed, strict=True))
