"""Trained and loaded tokenizers: deterministic, without specials of their own, exact in bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make, study_of, texts, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from ablate.corpus import read_domain
from ablate.corpus.pack import bytes_per_token
from ablate.corpus.tokenizer import export_tokenizer, load_tokenizer, train_tokenizer
from ablate.errors import CorpusError

SAMPLE = ["Hello  world, it's 12345!", " leading\n\n  spaces\t", "naïve café 😀👍🏽 日本語", "<s>"]


def sentencepiece_like() -> Tokenizer:
    """Return a tokenizer of Llama's kind: spaces as ▁, byte fallback, a beginning-of-text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz", "he", "▁he", "ll"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: number for number, piece in enumerate(pieces)},
            merges=[("h", "e"), ("▁", "he"), ("l", "l")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def saved(folder: Path, tokenizer: Tokenizer, **specials: str) -> Path:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(folder)
    return folder


def test_training_depends_on_the_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = texts("law", 300) + SAMPLE
    found = set()
    for parallel in ("false", "true"):
        monkeypatch.setitem(os.environ, "TOKENIZERS_PARALLELISM", parallel)
        found |= {train_tokenizer(iter(documents), 600).text for _ in range(3)}
    assert len(found) == 1
    whole = train_tokenizer(documents, 600)
    assert whole.info.vocab_size == 600
    assert whole.info == train_tokenizer(documents, 600).info
    assert whole.info.fingerprint != train_tokenizer(documents, 599).info.fingerprint
    few = train_tokenizer(["a"], 5000)
    assert few.info.vocab_size == 257
    assert few.info.eos_token_id == 0


@pytest.mark.parametrize("model", ["llama", "gpt2", "gpt_neox", "olmo2", "gemma2"])
def test_an_exported_tokenizer_beside_any_model(tmp_path: Path, model: str) -> None:
    tokenizer = train_tokenizer(SAMPLE * 5, 300)
    export_tokenizer(tokenizer, tmp_path)
    AutoConfig.for_model(model).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.eos_token, loaded.pad_token) == ("<|endoftext|>", "<|endoftext|>")
    assert loaded.eos_token_id == tokenizer.info.eos_token_id
    assert len(loaded) == tokenizer.info.vocab_size
    assert load_tokenizer(str(tmp_path), "model.path") == tokenizer
    plain = Tokenizer.from_str(tokenizer.text)
    for text in SAMPLE:
        assert loaded(text)["input_ids"] == plain.encode(text).ids
        assert loaded.decode(loaded(text)["input_ids"]) == text


def test_a_loaded_tokenizer_loses_its_specials(tmp_path: Path) -> None:
    tokenizer = sentencepiece_like()
    folder = saved(
        tmp_path / "its", tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    assert AutoTokenizer.from_pretrained(folder)("hello")["input_ids"][0] == 1
    path = write_lines(tmp_path / "odd.jsonl", SAMPLE)
    study = study_of(
        tmp_path, domains={"odd": str(path)}, units={"b": ["x"]}, tokenizer={"path": str(folder)}
    )
    corpus, root = make(study), Path(study.workspace)
    exported = AutoTokenizer.from_pretrained(root / "corpus" / "@tokenizer")
    assert exported("hello")["input_ids"] == [
        i for i in tokenizer.encode("hello").ids if i not in (1, 2)
    ]
    assert (exported.bos_token, exported.eos_token, exported.pad_token) == ("<s>", "</s>", "</s>")
    tokens, sizes = read_domain(root, corpus.domains["odd"])
    assert tokens.tolist() == [i for text in SAMPLE for i in [*exported(text)["input_ids"], 2]]
    assert int(sizes.sum()) == sum(len(text.encode()) for text in SAMPLE)
    assert corpus.tokenizer.eos_token_id == 2
    assert corpus.tokenizer.vocab_size == tokenizer.get_vocab_size()


def test_a_cached_tokenizer_of_the_hub_is_read_where_no_hub_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "models--some--tokenizer-1.0"
    saved(store / "snapshots" / "abc", sentencepiece_like(), eos_token="</s>")
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    here = load_tokenizer(str(store / "snapshots" / "abc"), "tokenizer.path")
    assert load_tokenizer("some/tokenizer-1.0", "tokenizer.path") == here
    with pytest.raises(
        CorpusError, match=r"must be a folder or hub id .* got some/other"
    ) as raised:
        load_tokenizer("some/other", "tokenizer.path")
    assert "\n" not in str(raised.value)


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, sentencepiece_like(), bos_token="<s>")
    with pytest.raises(CorpusError, match="must have an eos_token"):
        load_tokenizer(str(folder), "tokenizer.path")


def test_truncation_and_padding_are_left_out(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(train_tokenizer(SAMPLE, 300).text)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    folder = saved(tmp_path, tokenizer, eos_token="<|endoftext|>")
    loaded = load_tokenizer(str(folder), "tokenizer.path")
    assert len(Tokenizer.from_str(loaded.text).encode(SAMPLE[0]).ids) > 3
    tree: dict[str, Any] = json.loads(loaded.text)
    assert tree["truncation"] is None
    assert tree["padding"] is None


BYTE_LEVEL = Tokenizer.from_str(train_tokenizer(SAMPLE * 3, 320).text)
LOSSY = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
LOSSY.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
LOSSY.pre_tokenizer = pre_tokenizers.Whitespace()


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_bytes_of_tokens_sum_to_the_document(text: str) -> None:
    for tokenizer in (BYTE_LEVEL, LOSSY, sentencepiece_like()):
        found = tokenizer.encode(text, add_special_tokens=False)
        sizes = bytes_per_token(text, found.offsets)
        assert len(sizes) == len(found.ids)
        assert sizes.dtype == np.uint32
        if len(sizes):
            assert int(sizes.sum()) == len(text.encode())
    plain = [character for character in text if character.isascii()]
    found = BYTE_LEVEL.encode("".join(plain))
    lengths = [len(token) for token in found.tokens]
    assert bytes_per_token("".join(plain), found.offsets).tolist() == lengths
