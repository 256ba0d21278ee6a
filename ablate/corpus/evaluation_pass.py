"""Last pass: evaluation domains, and the held-out splits that other training text leaves clean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ablate.corpus.cutting import TrainCut
from ablate.corpus.job import Making
from ablate.corpus.ngrams import Grams
from ablate.corpus.pack import EvaluationPack, EvaluationRules, PackedEvaluation, pack_evaluation
from ablate.corpus.protection import Protected
from ablate.corpus.selection import HELDOUT, Stream, StreamChoice, parts_of
from ablate.corpus.tokenizer import StudyTokenizer
from ablate.corpus.values import DomainKind
from ablate.errors import CorpusError
from ablate.workspace import slug

NO_GRAMS: Grams = np.empty(0, np.uint64)
SHOWN = 20

Evaluated = Mapping[tuple[DomainKind, str], PackedEvaluation]


def evaluate_texts(
    making: Making,
    choices: Mapping[Stream, StreamChoice],
    cuts: Mapping[Stream, TrainCut],
    tokenizer: StudyTokenizer,
    protected: Protected | None,
) -> Evaluated:
    """Write the evaluated tokens of each domain and held-out split; return their counts.

    Raises CorpusError when one of them has no text.
    """
    checks = making.study.corpus.decontaminate
    rules = EvaluationRules(
        tokenizer=tokenizer.text,
        eos_token_id=tokenizer.info.eos_token_id,
        vocab_size=tokenizer.info.vocab_size,
        limit=making.study.evaluate.tokens_per_domain,
        ngram=checks.ngram if checks else 1,
        max_overlap=checks.max_overlap if checks else 1.0,
    )
    items = dict(_domain_items(making, choices))
    if making.study.corpus.heldout.documents:
        items |= dict(_heldout_items(making, cuts, protected))
    packed = making.map_tasks(pack_evaluation, list(items.values()), rules, "evaluation")
    found = dict(zip(items, packed, strict=True))
    _check(found, choices)
    return found


def _domain_items(
    making: Making, choices: Mapping[Stream, StreamChoice]
) -> Iterator[tuple[tuple[DomainKind, str], EvaluationPack]]:
    for name, choice in parts_of(choices, "domain"):
        yield (
            ("domain", name),
            EvaluationPack(
                pieces=tuple((making.pieces[n], fates) for n, fates in choice.fates.items()),
                heldout_files=(),
                covered=NO_GRAMS,
                path=str(making.final(slug(name)) / "evaluation.arrow"),
            ),
        )


def _heldout_items(
    making: Making, cuts: Mapping[Stream, TrainCut], protected: Protected | None
) -> Iterator[tuple[tuple[DomainKind, str], EvaluationPack]]:
    covered = covered_by_others(cuts, protected) if protected else {}
    for (kind, name), found in cuts.items():
        if kind == "partition":
            yield (
                ("heldout", name),
                EvaluationPack(
                    pieces=(),
                    heldout_files=tuple(part.heldout_file for part, _ in found.parts),
                    covered=covered.get(name, NO_GRAMS),
                    path=str(making.final(slug(name)) / "heldout.arrow"),
                ),
            )


def covered_by_others(cuts: Mapping[Stream, TrainCut], protected: Protected) -> dict[str, Grams]:
    """Return by partition its held-out n-grams that stand in others' (or the seed's) training text."""
    everything = protected.every_heldout
    owners = np.zeros(len(everything), np.int32)
    for found in cuts.values():
        owners[found.hits()] += 1
    covered = {}
    for (kind, name), found in cuts.items():
        if kind == "partition":
            others = owners.copy()
            others[found.hits()] -= 1
            covered[name] = np.intersect1d(everything[others > 0], protected.heldout[name])
    return covered


def _check(found: Evaluated, choices: Mapping[Stream, StreamChoice]) -> None:
    short = sorted(stream for stream, packed in found.items() if packed.tokens < 2)
    domains = [name for kind, name in short if kind == "domain"]
    if domains:
        raise CorpusError(
            f"evaluation domains must hold text, got none in {', '.join(domains)}; mend "
            "evaluate.domains"
        )
    if short:
        shown = ", ".join(
            f"{name} ({_held(choices['partition', name])} held out, "
            f"{found[kind, name].dropped} of them in training text of other partitions or the seed)"
            for kind, name in short[:SHOWN]
        )
        raise CorpusError(
            f"every partition must keep a held-out document, got none for {shown}; raise "
            "corpus.heldout.documents, add documents that stand nowhere else, or set it to 0 to "
            "evaluate on domains only"
        )


def _held(choice: StreamChoice) -> int:
    return sum(int((fates == HELDOUT).sum()) for fates in choice.fates.values())
