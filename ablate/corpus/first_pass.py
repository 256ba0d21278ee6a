"""First pass: scan all files, choose documents, gather protected text, get the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.corpus.job import Making
from ablate.corpus.ngrams import gather
from ablate.corpus.pieces import SEED
from ablate.corpus.protection import Protected
from ablate.corpus.scan import ScanRules, scan_piece
from ablate.corpus.seed_text import LearnItem, learn_tokenizer
from ablate.corpus.selection import Stream, StreamChoice, choose, parts_of
from ablate.corpus.tokenizer import StudyTokenizer, load_tokenizer
from ablate.errors import CorpusError
from ablate.study import Decontaminate


def scan_sources(making: Making) -> dict[Stream, StreamChoice]:
    """Return which documents of each stream are trained on, held out or dropped."""
    settings = making.study.corpus
    checks = settings.decontaminate
    rules = ScanRules(heldout=settings.heldout.documents, ngram=checks.ngram if checks else None)
    scans = making.map_tasks(scan_piece, making.pieces, rules, "scan")
    return choose(making.pieces, scans, rules.heldout)


def protect(
    choices: Mapping[Stream, StreamChoice], checks: Decontaminate | None
) -> Protected | None:
    """Return the n-grams of all evaluation domains and held-out splits; None when checks are off."""
    if checks is None:
        return None
    domains = {name: choice.protected for name, choice in parts_of(choices, "domain")}
    heldout = {name: choice.protected for name, choice in parts_of(choices, "partition")}
    return Protected(
        ngram=checks.ngram,
        max_overlap=checks.max_overlap,
        domains=domains,
        everything=gather(domains.values()),
        heldout=heldout,
        every_heldout=gather(heldout.values()),
    )


def study_tokenizer(
    making: Making, choices: Mapping[Stream, StreamChoice], protected: Protected | None
) -> StudyTokenizer:
    """Return the tokenizer that the study names, or one trained on the seed's kept text."""
    study = making.study
    if study.tokenizer.train is not None:
        fates = choices["seed", SEED].fates
        item = LearnItem(
            pieces=tuple((making.pieces[n], fates[n]) for n in sorted(fates)),
            vocab_size=study.tokenizer.train.vocab_size,
        )
        return making.map_tasks(learn_tokenizer, [item], protected, "tokenizer")[0]
    if study.tokenizer.path is not None:
        return load_tokenizer(study.tokenizer.path, "tokenizer.path")
    if study.model.path is not None:
        return load_tokenizer(study.model.path, "model.path")
    raise CorpusError("one of tokenizer.path, tokenizer.train and model.path must be given")
