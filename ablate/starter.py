"""The study that `ablate init` writes and `ablate demo` runs: commented, and runnable as it is."""

from __future__ import annotations

from pathlib import Path

from ablate.corpus.embedded import write_embedded
from ablate.errors import StudyError
from ablate.workspace import write_atomic

DATA = "data"

_STUDY = """\
# A study says what is asked. It alone decides the results; where it runs is in a cluster file.
# Try it:   ablate plan study.yaml      what it would do, and cost; changes nothing
#           ablate run study.yaml       do it all; what is done is never done again
# Any key can be changed on the command line: ablate run study.yaml search.merge.weighting=macro
# Relative paths are taken from this file's folder.

name: which-text-makes-a-python-model
workspace: workspace                # all results; delete it to start again

# The question: a small model that knows a bit of everything (the seed) is to become good at
# Python's language reference and at the READMEs of packages. Which of seven bodies of text should
# it go on training on? The text was cut out of installed packages, on this machine.

corpus:
  sources:                          # text that a mixture may include: .jsonl(.gz, .zst), .parquet, .txt, a folder, glob or hub id
    - {path: data/python.jsonl.gz, partition: python, max_tokens: 285_000}              # Python's standard library
    - {path: data/numeric-docs.jsonl.gz, partition: numeric-docs, max_tokens: 285_000}  # docstrings of numpy, pandas, scipy
    - {path: data/web-docs.jsonl.gz, partition: web-docs, max_tokens: 285_000}          # docstrings of web and SQL libraries
    - {path: data/sessions.jsonl.gz, partition: sessions, max_tokens: 145_000}          # interactive sessions (>>>)
    - {path: data/cpp.jsonl.gz, partition: cpp, max_tokens: 145_000}                    # C++ headers of torch and Arrow
    - {path: data/javascript.jsonl.gz, partition: javascript, max_tokens: 145_000}      # JavaScript of Ray's dashboard
    - {path: data/minified.jsonl.gz, partition: minified, max_tokens: 145_000}          # the same kind of thing, minified: bad data
    # One file with many partitions: {path: "papers/*.jsonl.gz", text: abstract, partition_by: [field, year]}
  unit_tokens: 120_000              # one model is trained on each base unit of so many tokens; the first three partitions have two
  short_units: error                # a partition with less than one unit: error | allow | repeat
  heldout: {documents: 0.1}         # share of each partition's documents that is kept for evaluation (large corpora: 0.01)
  decontaminate: {ngram: 13, max_overlap: 0.3}    # drop training documents that repeat evaluation text; null = off

tokenizer: {train: {vocab_size: 4096}}            # or {path: folder-or-hub-id}

model: {preset: tiny}               # a Llama of about a million parameters; or {path: folder-or-hub-id}, 130m, 1b

seed:                               # the model that every unit starts from; {} when model.path is already trained
  sources:
    - {path: data/seed.jsonl.gz}  # a broad mixture: other packages' code, documentation, C and C++
  tokens: 600_000
  learning_rate: 3e-3
  schedule: cosine                  # constant | cosine | wsd

train:                              # the recipe of every unit
  sequence_length: 128
  batch_tokens: 1024                # tokens in one optimizer step, over all workers
  learning_rate: 5e-4
  schedule: constant
  warmup: 0.05                      # below 1 a share of the steps, else a number of steps
  precision: fp32                   # bf16 where the hardware has it
  rng_seed: 0

evaluate:
  domains:                          # what the model should be good at; never trained on
    reference: data/reference.jsonl.gz          # Python's language reference
    readmes: data/readmes.jsonl.gz              # READMEs of installed packages
  tokens_per_domain: 1_536          # the first so many tokens of each domain and held-out split

search:
  space: {min_size: 1, max_size: 7} # all 127 subsets; or include: [python], exclude: [minified], max_tokens: 500_000
  merge: {method: linear, weighting: micro}       # micro: every unit counts the same; macro: every partition does
  algorithm: auto                   # exhaustive when it fits `trials`, else surrogate; `ablate schema` names them all
  trials: 200                       # most mixtures that are scored
  objective: {mean: domains}        # the loss to make small: all | domains | partitions | a list; or {domain: readmes}, {weighted: {...}}
  rng_seed: 0

# validate: {mixtures: 16}          # train so many mixtures for real: can the answer be trusted? `ablate validate` asks too
"""


def demo_study() -> str:
    """Return the demo study as YAML text; the embedded corpus lies in `data` beside it."""
    return _STUDY


def write_starter(folder: Path) -> Path:
    """Write `folder`/study.yaml and the text it reads under `folder`/data; return the study's path.

    Raises StudyError when there is a study already, and CorpusError when text cannot be found.
    """
    study = folder / "study.yaml"
    if study.exists():
        raise StudyError(
            f"init must not replace a study, got {study}, which exists; name another folder, or "
            "remove the file"
        )
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"init must be given a folder, got the file {folder}; name another place")
    write_embedded(folder / DATA)
    write_atomic(study, demo_study().encode())
    return study
