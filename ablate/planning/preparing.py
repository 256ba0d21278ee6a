"""Wall time of `prepare`: each pass is spread over tasks, one file (or partition) in each."""

from __future__ import annotations

from ablate.corpus.seed_text import LEARNED_BYTES
from ablate.corpus.survey import BYTES_PER_TOKEN
from ablate.planning.setting import RAY_START, TASK_START, Setting, Stage, makespan
from ablate.planning.texts import TextFile
from ablate.report.wording import count

PREPARED_TOKENS = 100_000
"""Tokens a second of one CPU: read, clean, split, decontaminate, tokenize (examples/at_scale)."""
SCAN_SHARE = 0.4
"""Of that time the first pass takes so much, which reads what is not kept too."""
SCANNED_TOKENS, ENCODED_TOKENS = PREPARED_TOKENS / SCAN_SHARE, PREPARED_TOKENS / (1 - SCAN_SHARE)
LEARNED_BYTES_PER_SECOND = 1e6
"""Bytes of the seed's text a second from which one task learns the tokenizer."""
PACKED_TOKENS = 5e7
"""Tokens a second that one task writes into a partition's file, and hashes."""
LONG_FILE = 3600.0
"""Seconds of one file from which on it is said that it should be split."""


def prepare_stage(setting: Setting) -> Stage:
    """Return when the corpus is prepared."""
    work, tasks = setting.work, setting.places.tasks
    if not tasks:
        return Stage(name="prepare", seconds=None, basis="no task fits")
    scanned = makespan([file.tokens / SCANNED_TOKENS for file in work.texts], tasks)
    encoded = makespan([file.kept / ENCODED_TOKENS for file in work.texts], tasks)
    each = work.evaluated_tokens / max(1, work.domains) / ENCODED_TOKENS
    evaluated = makespan([each] * work.domains, tasks)
    # Text that is repeated to fill a unit is hashed as often as it is in it.
    lengths = [max(part.tokens, sum(part.unit_tokens)) for part in work.partitions]
    lengths.append(sum(file.kept for file in work.texts if file.kind == "seed"))
    packed = makespan([length / PACKED_TOKENS for length in lengths], tasks)
    busy = scanned + _learning(setting) + encoded + evaluated + packed
    used = min(tasks, len(work.texts))
    each_file = ", one per file" if used < tasks else ""
    return Stage(
        name="prepare",
        seconds=(RAY_START + TASK_START + busy) / setting.hardware.start_share,
        basis=f"start, then {PREPARED_TOKENS // 1000}k tokens/s by each of {used:,} tasks"
        f"{each_file}",
    )


def problems_of_texts(setting: Setting) -> list[str]:
    """Return, in one line with a remedy, which file keeps all other tasks waiting."""
    tasks, files = setting.places.tasks, setting.work.texts
    if not tasks:
        return [
            f"no node holds a task of prepare.cpus {setting.cluster.prepare.cpus:g}; lower it, or "
            "say what a node is under nodes"
        ]
    longest = max(files, key=_seconds, default=None)
    if longest is None or _seconds(longest) < LONG_FILE:
        return []
    even = sum(map(_seconds, files)) / tasks
    if _seconds(longest) < 2 * even:
        return []
    return [
        f"prepare reads a file in one task: {longest.path}, of about {count(longest.tokens)} "
        f"tokens, takes {_seconds(longest) / 3600:,.3g} h, an even share of {tasks:,} tasks "
        f"{even / 3600:,.2g} h; split it"
    ]


def _seconds(file: TextFile) -> float:
    """Return how long a file takes one CPU."""
    return file.tokens / SCANNED_TOKENS + file.kept / ENCODED_TOKENS


def _learning(setting: Setting) -> float:
    """Return the seconds of the one task that learns the tokenizer, from all of the seed's text."""
    if setting.study.tokenizer.train is None:
        return 0.0
    tokens = sum(file.tokens for file in setting.work.texts if file.kind == "seed")
    return min(LEARNED_BYTES, tokens * BYTES_PER_TOKEN) / LEARNED_BYTES_PER_SECOND
