"""The study's tokenizer: trained on the seed's text, or loaded; exported without specials."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ablate.corpus.values import TokenizerInfo
from ablate.errors import CorpusError
from ablate.workspace import fingerprint, strange_file, write_atomic

END_OF_TEXT = "<|endoftext|>"
ADDING = frozenset({"TemplateProcessing", "BertProcessing", "RobertaProcessing"})
CONTACT_SECONDS = 20.0
HUB_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, kw_only=True)
class StudyTokenizer:
    """A tokenizer as `tokenizer.json` text and the special tokens of its configuration."""

    text: str
    specials: dict[str, str]
    info: TokenizerInfo


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> StudyTokenizer:
    """Return a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv 1508.07909) of the texts.

    The result depends on the texts alone. It has at most `vocab_size` entries, the 256 bytes and
    end-of-text among them; fewer when the texts have no more pairs to merge.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _described(tokenizer.to_str(), {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT})


def load_tokenizer(path: str, place: str) -> StudyTokenizer:
    """Return the Hugging Face tokenizer in a folder or of a hub id; it adds nothing by itself.

    `place` is the study key. Raises CorpusError when there is none, none that `tokenizers` can
    run, or none with an end-of-sequence token.
    """
    loaded = _loaded(path, place)
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise CorpusError(
            f"{place} must be a tokenizer with a tokenizer.json, got the slow "
            f"{type(loaded).__name__} of {path}; convert it"
        )
    if loaded.eos_token is None:
        raise CorpusError(
            f"{place} must have an eos_token (documents end with it), got none for {path}; set "
            "eos_token in its tokenizer_config.json"
        )
    specials = {
        name: str(getattr(loaded, name))
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if getattr(loaded, name) is not None
    }
    specials.setdefault("pad_token", specials["eos_token"])
    return _described(backend.to_str(), specials)


def _loaded(path: str, place: str) -> Any:
    # Imported here: transformers takes seconds, and reruns need no tokenizer.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
    from transformers import AutoTokenizer

    if Path(path).is_dir() and (strange := strange_file(Path(path))) is not None:
        raise CorpusError(
            f"{place} must be a folder of plain files, got a pipe, socket or device at {strange}; "
            "copy it again"
        )
    try:
        folder = path if Path(path).is_dir() else _snapshot(path)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        HTTPError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorpusError(
            f"{place} must be a folder or hub id with a tokenizer, got {path}: "
            f"{type(error).__name__}: {reason}; check the path"
        ) from error


def _snapshot(name: str) -> str:
    """Return the folder of a hub id's newest files, or of the cached ones where no hub answers."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HTTPError,
    )

    try:
        # Asked once and first: what follows waits without end, or tries many times.
        HfApi().model_info(name, timeout=CONTACT_SECONDS)
        silent = False
    except HfHubHTTPError:
        raise
    except (HTTPError, ConnectionError):
        silent = True
    return snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=silent)


def _described(text: str, specials: dict[str, str]) -> StudyTokenizer:
    """Return a tokenizer without truncation, padding and specials of its own, with its identity."""
    tree = json.loads(text)
    tree["truncation"] = tree["padding"] = None
    tree["post_processor"] = _without_specials(tree.get("post_processor"))
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    eos = tokenizer.token_to_id(specials["eos_token"])
    if eos is None:
        raise CorpusError(
            f"the tokenizer's eos_token must be in its vocabulary, got {specials['eos_token']!r}; "
            "mend its tokenizer_config.json"
        )
    canonical = json.dumps(tree, ensure_ascii=False, sort_keys=False)
    return StudyTokenizer(
        text=canonical,
        specials=specials,
        info=TokenizerInfo(
            fingerprint=fingerprint({"tokenizer": tree, "eos": eos}),
            vocab_size=max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1,
            eos_token_id=eos,
        ),
    )


def _without_specials(processor: Any) -> Any:
    if processor is None or processor["type"] in ADDING:
        return None
    if processor["type"] == "Sequence":
        kept = [part for part in processor["processors"] if part["type"] not in ADDING]
        return {**processor, "processors": kept} if kept else None
    return processor


def export_tokenizer(tokenizer: StudyTokenizer, folder: Path) -> None:
    """Write a folder that `AutoTokenizer.from_pretrained` loads."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokenizer.specials,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "tokenizer.json", tokenizer.text.encode())
    body = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    write_atomic(folder / "tokenizer_config.json", body.encode())
