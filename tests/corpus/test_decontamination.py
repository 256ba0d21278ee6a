"""Decontamination against a slow implementation of the same words."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from corpora import make, named, study_of, texts, words, write_lines

from ablate.corpus import read_domain, read_tokens
from ablate.corpus.encode import HELD_HITS, _Hits
from ablate.corpus.ngrams import gather, ngram_hashes, overlap
from ablate.errors import CorpusError

N, MOST, SHARE = 5, 0.3, 0.25


def grams(text: str) -> list[tuple[str, ...]]:
    found = text.lower().split()
    return [tuple(found[i : i + N]) for i in range(len(found) - N + 1)]


def share(text: str, protected: set[tuple[str, ...]]) -> float:
    found = grams(text)
    return sum(gram in protected for gram in found) / len(found) if found else 0.0


def is_held(text: str, share: float = SHARE) -> bool:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64 < share


def gather_grams(documents: list[str]) -> set[tuple[str, ...]]:
    return {gram for text in documents for gram in grams(text)}


def spliced(rng: random.Random, own: list[str], others: list[str]) -> list[str]:
    """Return documents into which runs of words of other documents were put."""
    found = []
    for text in own:
        mine, theirs = text.split(), rng.choice(others).split()
        at, length = rng.randrange(len(mine)), rng.randrange(0, 30)
        found.append(" ".join([*mine[:at], *theirs[:length], *mine[at:]]).title())
    return found


def test_hashes_follow_the_words() -> None:
    one = ngram_hashes("A b  C\td\ne F g", 5)
    assert np.array_equal(one, ngram_hashes("a B c d E f G", 5))
    assert len(one) == 3
    assert len(set(one.tolist())) == 3
    assert not len(ngram_hashes("a b c d", 5))
    assert ngram_hashes("the quick brown fox jumps", 5).tolist() == [13492501106663748816]
    assert overlap(one, gather([one[:1]])) == pytest.approx(1 / 3)
    assert overlap(one, gather([])) == 0.0


def test_documents_dropped_are_those_of_the_slow_rule(tmp_path: Path) -> None:
    rng = random.Random(3)
    news = texts("news", 25)
    a_own, b_own = texts("a", 80), texts("b", 80)
    a = [*spliced(rng, a_own, news), *spliced(rng, texts("a", 40, start=500), a_own)]
    b = [*spliced(rng, b_own, a), "too short", *spliced(rng, texts("b", 30, start=500), b_own)]
    seed = spliced(rng, texts("seed", 60), [*news, *b])
    paths = {
        name: write_lines(tmp_path / f"{name}.jsonl", rows)
        for name, rows in {"a": a, "b": b, "news": news, "seed": seed}.items()
    }
    study = study_of(
        tmp_path,
        [named(paths["a"], "a"), named(paths["b"], "b")],
        domains={"news": str(paths["news"])},
        corpus={
            "heldout": {"documents": SHARE},
            "decontaminate": {"ngram": N, "max_overlap": MOST},
        },
    )
    corpus, root = make(study), Path(study.workspace)

    domain = gather_grams(news)
    kept: dict[str, list[str]] = {"seed": [text for text in seed if share(text, domain) <= MOST]}
    held = {}
    for name, rows in (("a", a), ("b", b)):
        held[name] = [text for text in rows if is_held(text)]
        own = gather_grams(held[name])
        kept[name] = [
            text
            for text in rows
            if not is_held(text) and share(text, domain) <= MOST and share(text, own) <= MOST
        ]
    clean = {
        name: [
            text
            for text in held[name]
            if share(text, gather_grams([t for o in kept if o != name for t in kept[o]])) <= MOST
        ]
        for name in held
    }
    assert len(clean["a"]) < len(held["a"]) or len(clean["b"]) < len(held["b"])

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "corpus" / "@tokenizer")

    def stream(documents: list[str]) -> list[int]:
        return [i for t in documents for i in [*tokenizer(t)["input_ids"], tokenizer.eos_token_id]]

    for name, rows in (("a", a), ("b", b)):
        info = corpus.partitions[name]
        assert read_tokens(root, info.train, 0, info.tokens).tolist() == stream(kept[name])
        assert info.documents == len(kept[name])
        assert info.bytes == sum(len(text) for text in kept[name])
        assert info.dropped["contaminated"] == len(rows) - len(held[name]) - len(kept[name]) > 0
        assert info.heldout_documents == len(clean[name])
        assert info.heldout_dropped == len(held[name]) - len(clean[name])
        assert read_domain(root, corpus.domains[name])[0].tolist() == stream(clean[name])
    assert corpus.partitions["b"].unchecked == ("too short" in kept["b"])
    assert corpus.seed is not None
    assert read_tokens(root, corpus.seed, 0, corpus.seed.tokens).tolist() == stream(kept["seed"])
    assert corpus.seed_dropped["contaminated"] == len(seed) - len(kept["seed"]) > 0


def test_repetitive_text_without_evaluation_overlap_stays(tmp_path: Path) -> None:
    formula = words("same", 0, 30)
    rows = [f"{formula} {words('law', number, 6)}" for number in range(80)]
    path = write_lines(tmp_path / "law.jsonl", rows)
    free = {"heldout": {"documents": 0}}
    info = make(study_of(tmp_path, [named(path, "law")], corpus=free)).partitions["law"]
    assert info.dropped["contaminated"] == 0
    assert info.documents == 80
    held = study_of(tmp_path, [named(path, "law")])
    with pytest.raises(CorpusError, match=r"100% of partition 'law'.*own held-out.*max_overlap"):
        make(held)
    off = study_of(tmp_path, [named(path, "law")], corpus={"decontaminate": None})
    assert make(off).partitions["law"].dropped["contaminated"] == 0


def test_the_domain_that_takes_most_is_named(tmp_path: Path) -> None:
    law = texts("law", 60)
    path = write_lines(tmp_path / "law.jsonl", law)
    leak = write_lines(tmp_path / "leak.jsonl", law[:50])
    other = write_lines(tmp_path / "other.jsonl", texts("other", 5))
    domains = {"other": str(other), "leak": str(leak)}
    with pytest.raises(CorpusError, match="evaluation domain 'leak'"):
        make(study_of(tmp_path, [named(path, "law")], domains=domains))


def test_limited_sources_cover_only_with_what_they_keep(tmp_path: Path) -> None:
    b = texts("b", 60)
    held = [text for text in b if is_held(text, 0.2)]
    copies = [
        next(copy for copy in (f"{n} {text}" for n in range(99)) if not is_held(copy, 0.2))
        for text in held
    ]
    a = write_lines(tmp_path / "a.jsonl", [*texts("a", 40), *copies])
    paths = [named(a, "a"), named(write_lines(tmp_path / "b.jsonl", b), "b")]
    with pytest.raises(CorpusError, match="keep a held-out document, got none for b"):
        make(study_of(tmp_path, paths))
    short = make(study_of(tmp_path, [{**paths[0], "max_tokens": 1000}, paths[1]]))
    assert short.partitions["b"].heldout_dropped == 0
    assert short.partitions["b"].heldout_documents == len(held)


def test_duplicates_are_dropped_within_a_partition_only(tmp_path: Path) -> None:
    law = texts("law", 40)
    rows = [*law, law[3], law[5], " \n", {"text": None}, law[3]]
    write_lines(tmp_path / "law" / "1.jsonl", rows)
    write_lines(tmp_path / "law" / "2.jsonl", [law[0], *texts("law", 5, start=90)])
    copy = write_lines(tmp_path / "copy.jsonl", law)
    corpus = make(
        study_of(
            tmp_path,
            [named(tmp_path / "law", "law"), named(copy, "copy")],
            corpus={"heldout": {"documents": 0}, "decontaminate": None},
        )
    )
    info = corpus.partitions["law"]
    assert info.dropped == {"empty": 1, "not_text": 1, "duplicate": 4, "contaminated": 0}
    assert info.documents == 45
    assert corpus.partitions["copy"].documents == 40
    assert corpus.domains == {}


def test_hits_are_held_once_each_where_the_text_first_has_them() -> None:
    rng = np.random.default_rng(0)
    hits, expected, most = _Hits(), {}, 0
    for at in range(0, 40_000, 100):
        places = np.unique(rng.integers(0, 3_000, 200))
        hits.add(places, at)
        for place in places.tolist():
            expected.setdefault(place, at)
        most = max(most, hits.held)
    found, found_at = hits.first()
    assert list(zip(found.tolist(), found_at.tolist(), strict=True)) == list(expected.items())
    assert most <= 2 * HELD_HITS
