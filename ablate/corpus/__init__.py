"""Documents to partitions to base units to tokens."""

from ablate.corpus.job import MapTasks
from ablate.corpus.prepare import prepare
from ablate.corpus.survey import PartitionSurvey, Survey, survey
from ablate.corpus.token_files import read_domain, read_tokens
from ablate.corpus.values import (
    Corpus,
    DomainInfo,
    PartitionInfo,
    TokenFile,
    TokenizerInfo,
    counts_table,
    read_corpus,
)

__all__ = [
    "Corpus",
    "DomainInfo",
    "MapTasks",
    "PartitionInfo",
    "PartitionSurvey",
    "Survey",
    "TokenFile",
    "TokenizerInfo",
    "counts_table",
    "prepare",
    "read_corpus",
    "read_domain",
    "read_tokens",
    "survey",
]
