"""The three passes, in order, and what goes from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.corpus.cutting import TrainCut, check_losses, cut, shorten, unit_sizes
from ablate.corpus.encode import (
    EncodedPart,
    EncodeItem,
    EncodeRules,
    encode_piece,
)
from ablate.corpus.ngrams import Grams, gather
from ablate.corpus.pack import (
    EvaluationPack,
    EvaluationRules,
    PackedEvaluation,
    PackedTrain,
    TrainPack,
    pack_evaluation,
    pack_train,
)
from ablate.corpus.pieces import SEED, limits_of
from ablate.corpus.protection import Protected
from ablate.corpus.scan import Piece, ScanRules, scan_piece
from ablate.corpus.seed_text import LearnItem, learn_tokenizer
from ablate.corpus.selection import HELDOUT, Stream, StreamChoice, choose, parts_of
from ablate.corpus.tokenizer import StudyTokenizer, export_tokenizer, load_tokenizer
from ablate.corpus.values import Corpus, DomainInfo, PartitionInfo, TokenFile
from ablate.errors import CorpusError
from ablate.study import Study
from ablate.workspace import fingerprint, slug

if TYPE_CHECKING:
    from ablate.corpus.prepare import MapTasks

NO_GRAMS: Grams = np.empty(0, np.uint64)


@dataclass(frozen=True, kw_only=True)
class Making:
    """One making of a corpus; finished files lie in `folder/final`, laid out as in the workspace."""

    study: Study
    pieces: list[Piece]
    folder: Path
    map_tasks: MapTasks

    def make(self, inputs: dict[str, Any]) -> Corpus:
        """Return the corpus; paths are those it has once published."""
        choices = self._scan()
        protected = self._protected(choices)
        tokenizer = self._tokenizer(choices, protected)
        export_tokenizer(tokenizer, self._final("@tokenizer"))
        cuts = self._encode(choices, tokenizer, protected)
        partitions = {name: found for (kind, name), found in cuts.items() if kind == "partition"}
        sizes = unit_sizes(
            {name: found.tokens for name, found in partitions.items()}, self.study.corpus
        )
        evaluated = self._pack_evaluation(choices, cuts, tokenizer, protected)
        trains = self._pack_train(cuts, sizes, tokenizer)
        seed = cuts.get(("seed", SEED))
        infos = {
            name: self._partition(
                name,
                found,
                choices["partition", name],
                sizes[name],
                trains["partition", name],
                evaluated.get(("heldout", name)),
            )
            for name, found in sorted(partitions.items())
        }
        domains = {
            name: _domain(kind, name, found) for (kind, name), found in sorted(evaluated.items())
        }
        seed_file = None if seed is None else _file("@seed/train.arrow", seed, trains["seed", SEED])
        return Corpus(
            fingerprint=corpus_fingerprint(tokenizer, infos, domains, seed_file),
            tokenizer=tokenizer.info,
            partitions=infos,
            domains=domains,
            seed=seed_file,
            seed_dropped={} if seed is None else _dropped(choices["seed", SEED], seed),
            inputs=inputs,
        )

    def _final(self, name: str) -> Path:
        path = self.folder / "final" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _scan(self) -> dict[Stream, StreamChoice]:
        checks = self.study.corpus.decontaminate
        rules = ScanRules(
            heldout=self.study.corpus.heldout.documents, ngram=checks.ngram if checks else None
        )
        scans = self.map_tasks(scan_piece, self.pieces, rules, "scan")
        return choose(self.pieces, scans, rules.heldout)

    def _protected(self, choices: Mapping[Stream, StreamChoice]) -> Protected | None:
        checks = self.study.corpus.decontaminate
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

    def _tokenizer(
        self, choices: Mapping[Stream, StreamChoice], protected: Protected | None
    ) -> StudyTokenizer:
        asked = self.study.tokenizer
        if asked.train is None:
            path, place = asked.path, "tokenizer.path"
            if path is None:
                path, place = self.study.model.path, "model.path"
            if path is None:
                raise CorpusError("tokenizer.path, tokenizer.train or model.path must be given")
            return load_tokenizer(path, place)
        item = LearnItem(
            pieces=tuple(
                (piece, choices["seed", SEED].fates.get(piece.number, np.empty(0, np.int8)))
                for piece in self.pieces
                if piece.kind == "seed"
            ),
            vocab_size=asked.train.vocab_size,
        )
        return self.map_tasks(learn_tokenizer, [item], protected, "tokenizer")[0]

    def _encode(
        self,
        choices: Mapping[Stream, StreamChoice],
        tokenizer: StudyTokenizer,
        protected: Protected | None,
    ) -> dict[Stream, TrainCut]:
        limits = limits_of(self.study)
        items = [
            EncodeItem(
                piece=piece,
                fates={
                    name: choice.fates[piece.number]
                    for name, choice in parts_of(choices, piece.kind)
                    if piece.number in choice.fates
                },
                folder=str(self.folder / f"part-{piece.number}"),
                limit=limits[piece.kind, piece.source],
            )
            for piece in self.pieces
            if piece.kind != "domain"
        ]
        rules = EncodeRules(
            tokenizer=tokenizer.text,
            eos_token_id=tokenizer.info.eos_token_id,
            vocab_size=tokenizer.info.vocab_size,
            protected=protected,
        )
        parts: dict[Stream, list[tuple[EncodedPart, int]]] = {}
        for item, encoded in zip(
            items, self.map_tasks(encode_piece, items, rules, "tokenize"), strict=True
        ):
            for name, part in encoded.items():
                parts.setdefault((item.piece.kind, name), []).append((part, item.piece.source))
        cuts = {
            (kind, name): cut(given, {n: v for (k, n), v in limits.items() if k == kind})
            for (kind, name), given in parts.items()
        }
        if ("seed", SEED) in cuts:
            cuts["seed", SEED] = shorten(cuts["seed", SEED], self.study.seed.tokens)
        for (kind, name), found in cuts.items():
            check_losses("the seed's text" if kind == "seed" else f"partition '{name}'", found)
        if ("seed", SEED) in cuts and cuts["seed", SEED].tokens < 2:
            raise CorpusError("seed.sources must hold text, got none that is kept; add some")
        return cuts

    def _pack_train(
        self,
        cuts: Mapping[Stream, TrainCut],
        sizes: Mapping[str, tuple[int, ...]],
        tokenizer: StudyTokenizer,
    ) -> dict[Stream, PackedTrain]:
        items = [
            TrainPack(
                parts=tuple((part.tokens_file, take) for part, take in found.parts),
                unit_tokens=sizes[name] if kind == "partition" else (),
                path=str(self._final(name if kind == "seed" else slug(name)) / "train.arrow"),
            )
            for (kind, name), found in cuts.items()
        ]
        packed = self.map_tasks(pack_train, items, tokenizer.info.vocab_size, "pack")
        return dict(zip(cuts, packed, strict=True))

    def _pack_evaluation(
        self,
        choices: Mapping[Stream, StreamChoice],
        cuts: Mapping[Stream, TrainCut],
        tokenizer: StudyTokenizer,
        protected: Protected | None,
    ) -> dict[tuple[str, str], PackedEvaluation]:
        items: dict[tuple[str, str], EvaluationPack] = {}
        for name, choice in parts_of(choices, "domain"):
            items["domain", name] = EvaluationPack(
                pieces=tuple((self.pieces[n], fates) for n, fates in choice.fates.items()),
                heldout_files=(),
                covered=NO_GRAMS,
                path=str(self._final(slug(name)) / "evaluation.arrow"),
            )
        if self.study.corpus.heldout.documents:
            for name, covered in _covered(cuts, protected):
                items["heldout", name] = EvaluationPack(
                    pieces=(),
                    heldout_files=tuple(
                        part.heldout_file for part, _ in cuts["partition", name].parts
                    ),
                    covered=covered,
                    path=str(self._final(slug(name)) / "heldout.arrow"),
                )
        checks = self.study.corpus.decontaminate
        rules = EvaluationRules(
            tokenizer=tokenizer.text,
            eos_token_id=tokenizer.info.eos_token_id,
            vocab_size=tokenizer.info.vocab_size,
            limit=self.study.evaluate.tokens_per_domain,
            ngram=checks.ngram if checks else 1,
            max_overlap=checks.max_overlap if checks else 1.0,
        )
        packed = self.map_tasks(pack_evaluation, list(items.values()), rules, "evaluation")
        found = dict(zip(items, packed, strict=True))
        _check_evaluation(found, choices)
        return found

    def _partition(
        self,
        name: str,
        found: TrainCut,
        choice: StreamChoice,
        sizes: tuple[int, ...],
        packed: PackedTrain,
        heldout: PackedEvaluation | None,
    ) -> PartitionInfo:
        repeated = self.study.corpus.short_units == "repeat"
        return PartitionInfo(
            name=name,
            slug=slug(name),
            documents=found.documents,
            tokens=found.tokens,
            bytes=found.bytes,
            units=len(sizes),
            unit_tokens=sizes,
            unit_digests=packed.unit_digests,
            unused_tokens=max(found.tokens - sum(sizes), 0)
            if repeated
            else found.tokens - sum(sizes),
            dropped=_dropped(choice, found),
            unchecked=found.unchecked,
            heldout_documents=heldout.kept if heldout else 0,
            heldout_dropped=heldout.dropped if heldout else 0,
            train=_file(f"{slug(name)}/train.arrow", found, packed),
        )


def _covered(
    cuts: Mapping[Stream, TrainCut], protected: Protected | None
) -> Iterator[tuple[str, Grams]]:
    """Yield each partition with those held-out n-grams that others' training text has."""
    names = [name for kind, name in cuts if kind == "partition"]
    if protected is None:
        yield from ((name, NO_GRAMS) for name in names)
        return
    everything = protected.every_heldout
    owners = np.zeros(len(everything), np.int32)
    for found in cuts.values():
        owners[found.hits()] += 1
    for name in names:
        others = owners.copy()
        others[cuts["partition", name].hits()] -= 1
        yield name, np.intersect1d(everything[others > 0], protected.heldout[name])


def _check_evaluation(
    found: Mapping[tuple[str, str], PackedEvaluation], choices: Mapping[Stream, StreamChoice]
) -> None:
    empty = sorted(
        name for (kind, name), packed in found.items() if kind == "domain" and packed.tokens < 2
    )
    if empty:
        raise CorpusError(
            f"evaluation domains must hold text, got none in {', '.join(empty)}; mend "
            "evaluate.domains"
        )
    short = {}
    for (kind, name), packed in found.items():
        if kind == "heldout" and packed.tokens < 2:
            fates = choices["partition", name].fates.values()
            short[name] = (sum(int((f == HELDOUT).sum()) for f in fates), packed.dropped)
    if short:
        shown = ", ".join(
            f"{name} ({held} held out, {dropped} of them found in other training text)"
            for name, (held, dropped) in sorted(short.items())[:20]
        )
        raise CorpusError(
            f"every partition must keep a held-out document, got none for {shown}; raise "
            "corpus.heldout.documents, add documents, or set it to 0 to evaluate on domains only"
        )


def _dropped(choice: StreamChoice, found: TrainCut) -> dict[str, int]:
    return {
        "empty": choice.empty,
        "not_text": choice.not_text,
        "duplicate": choice.duplicates,
        "contaminated": found.contaminated,
    }


def _file(name: str, found: TrainCut, packed: PackedTrain) -> TokenFile:
    return TokenFile(path=f"corpus/{name}", tokens=found.tokens, digest=packed.digest)


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
    tokenizer: StudyTokenizer,
    partitions: Mapping[str, PartitionInfo],
    domains: Mapping[str, DomainInfo],
    seed: TokenFile | None,
) -> str:
    """Return a fingerprint of contents: no path, time or count of files goes into it."""
    return fingerprint(
        {
            "tokenizer": tokenizer.info.fingerprint,
            "partitions": {n: [i.train.digest, list(i.unit_tokens)] for n, i in partitions.items()},
            "domains": {n: [i.kind, i.tokens_file.digest] for n, i in domains.items()},
            "seed": seed.digest if seed else None,
        }
    )
