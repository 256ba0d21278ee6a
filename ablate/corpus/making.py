"""A corpus from the three passes over its sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.corpus.cutting import TrainCut, unit_sizes
from ablate.corpus.evaluation_pass import Evaluated, evaluate_texts
from ablate.corpus.first_pass import protect, scan_sources, study_tokenizer
from ablate.corpus.job import Making
from ablate.corpus.pack import PackedEvaluation, PackedTrain
from ablate.corpus.pieces import SEED
from ablate.corpus.selection import Stream, StreamChoice
from ablate.corpus.tokenizer import export_tokenizer
from ablate.corpus.train_pass import encode_sources, pack_sources
from ablate.corpus.values import Corpus, DomainInfo, PartitionInfo, TokenFile, TokenizerInfo
from ablate.errors import CorpusError
from ablate.workspace import fingerprint, slug


def make(making: Making, inputs: dict[str, Any]) -> Corpus:
    """Return the corpus; its files lie in `making.final`, its paths are those once published."""
    settings = making.study.corpus
    choices = scan_sources(making)
    _require_text(choices)
    protected = protect(choices, settings.decontaminate)
    tokenizer = study_tokenizer(making, choices, protected)
    export_tokenizer(tokenizer, making.final("@tokenizer"))
    cuts = encode_sources(making, choices, tokenizer, protected)
    tokens = {name: found.tokens for (kind, name), found in cuts.items() if kind == "partition"}
    sizes = unit_sizes(tokens, settings)
    evaluated = evaluate_texts(making, choices, cuts, tokenizer, protected)
    trains = pack_sources(making, cuts, sizes, tokenizer)
    partitions = {
        name: _partition(making, name, cuts, choices, sizes[name], trains, evaluated)
        for name in sorted(sizes)
    }
    domains = {
        name: _domain(kind, name, found) for (kind, name), found in sorted(evaluated.items())
    }
    seed = cuts.get(("seed", SEED))
    seed_file = _file(SEED, seed, trains["seed", SEED]) if seed else None
    return Corpus(
        fingerprint=corpus_fingerprint(tokenizer.info, partitions, domains, seed_file),
        tokenizer=tokenizer.info,
        partitions=partitions,
        domains=domains,
        seed=seed_file,
        seed_dropped=_dropped(choices["seed", SEED], seed) if seed else {},
        inputs=inputs,
    )


def _require_text(choices: Mapping[Stream, StreamChoice]) -> None:
    bare = [
        f"{name} ({choice.not_text} without a text, {choice.empty} empty)"
        for (kind, name), choice in choices.items()
        if kind == "partition" and not any(len(fates) for fates in choice.fates.values())
    ]
    if bare:
        raise CorpusError(
            f"partitions must hold documents with text, got none for {', '.join(bare[:20])}; name "
            "the key or column that holds the text under `text`"
        )


def _partition(
    making: Making,
    name: str,
    cuts: Mapping[Stream, TrainCut],
    choices: Mapping[Stream, StreamChoice],
    sizes: tuple[int, ...],
    trains: Mapping[Stream, PackedTrain],
    evaluated: Evaluated,
) -> PartitionInfo:
    stream: Stream = ("partition", name)
    found, heldout = cuts[stream], evaluated.get(("heldout", name))
    return PartitionInfo(
        name=name,
        slug=slug(name),
        documents=found.documents,
        tokens=found.tokens,
        bytes=found.bytes,
        units=len(sizes),
        unit_tokens=sizes,
        unit_digests=trains[stream].unit_digests,
        unused_tokens=max(found.tokens - sum(sizes), 0),
        dropped=_dropped(choices[stream], found),
        unchecked=found.unchecked,
        heldout_documents=heldout.kept if heldout else 0,
        heldout_dropped=heldout.dropped if heldout else 0,
        train=_file(slug(name), found, trains[stream]),
        sources=_sources(making, choices[stream]),
    )


def _sources(making: Making, choice: StreamChoice) -> tuple[int, ...]:
    """Return the places of the study's sources that a stream has documents of."""
    found = {making.pieces[n].source for n, fates in choice.fates.items() if len(fates)}
    return tuple(sorted(found))


def _dropped(choice: StreamChoice, found: TrainCut) -> dict[str, int]:
    return {
        "empty": choice.empty,
        "not_text": choice.not_text,
        "duplicate": choice.duplicates,
        "contaminated": found.contaminated,
    }


def _file(folder: str, found: TrainCut, packed: PackedTrain) -> TokenFile:
    return TokenFile(path=f"corpus/{folder}/train.arrow", tokens=found.tokens, digest=packed.digest)


def _domain(kind: str, name: str, packed: PackedEvaluation) -> DomainInfo:
    file = "evaluation" if kind == "domain" else "heldout"
    return DomainInfo(
        name=name,
        kind="domain" if kind == "domain" else "heldout",
        documents=packed.documents,
        tokens=packed.tokens,
        bytes=packed.bytes,
        tokens_file=TokenFile(
            path=f"corpus/{slug(name)}/{file}.arrow", tokens=packed.tokens, digest=packed.digest
        ),
    )


def corpus_fingerprint(
    tokenizer: TokenizerInfo,
    partitions: Mapping[str, PartitionInfo],
    domains: Mapping[str, DomainInfo],
    seed: TokenFile | None,
) -> str:
    """Return a fingerprint of contents: no path, time or number of files goes into it."""
    return fingerprint(
        {
            "tokenizer": tokenizer.fingerprint,
            "partitions": {n: [i.train.digest, list(i.unit_tokens)] for n, i in partitions.items()},
            "domains": {n: [i.kind, i.tokens_file.digest] for n, i in domains.items()},
            "seed": seed.digest if seed else None,
        }
    )
