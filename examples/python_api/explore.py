"""The whole way from Python: `python explore.py FOLDER`, in a couple of minutes.

Without a study in FOLDER, a tiny one is written there, on text of Python's standard library. What
is done already is not done again.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import ablate

STUDY = """\
name: standard-library
workspace: work
corpus:
  sources:
    - {path: texts/email.jsonl, partition: email}
    - {path: texts/asyncio.jsonl, partition: asyncio}
    - {path: texts/unittest.jsonl, partition: unittest}
    - {path: texts/logging.jsonl, partition: logging}
  unit_tokens: 30_000
  heldout: {documents: 0.1}
tokenizer: {train: {vocab_size: 1024}}
model:
  preset: tiny
  overrides: {hidden_size: 64, intermediate_size: 192, num_hidden_layers: 2, num_attention_heads: 2}
seed: {sources: [{path: texts/seed.jsonl}], tokens: 100_000, learning_rate: 4e-3}
train: {sequence_length: 64, batch_tokens: 1024, learning_rate: 2e-3, schedule: constant}
evaluate: {domains: {reference: texts/reference.jsonl}, tokens_per_domain: 2_048}
search: {objective: {mean: all}}
validate: {mixtures: 9}
"""
PIECE = 1_200  # characters of a document
MOST = 200_000  # characters of a text


def main(folder: Path) -> None:
    """Prepare, train, search, ask, and check the answer against models trained for real."""
    write_study(folder)
    study = ablate.load_study(folder / "study.yaml", ["search.space.max_size=4"])
    plan = ablate.plan(study)
    print(f"{plan.work.trials} mixtures to score, {plan.forecast.seconds or 0:.0f} s here in all")

    corpus = ablate.prepare(study)
    for name, part in sorted(corpus.partitions.items()):
        print(f"  {name}: {part.documents} documents, {part.tokens:,} tokens, {part.units} units")

    pool = ablate.train(study)
    board = ablate.search(study, pool)
    ask(pool, board)

    check = ablate.validate(study, pool, board)
    print(f"\n{check.headline}")
    board = ablate.search(study, pool)  # nothing is scored again: now ranked by predicted loss
    print(f"\nbest by {board.ranked_by}: {' + '.join(board.best.partitions)}")
    print(f"a page to look at: {ablate.report(study)}")


def ask(pool: ablate.ModelPool, board: ablate.Leaderboard) -> None:
    """Print what a board of scored mixtures says."""
    print("\nbest of each size, by the loss of the merged model")
    for size, row in board.best_of_size.items():
        print(f"  {size}: {row.objective:.4f}  {' + '.join(row.partitions)}")
    tied = board.tied_with_best()
    print(f"{len(tied) - 1} others cannot be told from the best on this much text")

    difference = board.compare(*board.mixtures[:2])
    print(
        f"the first is better than the second with probability {difference.probability:.2f}: "
        f"{difference.mean:+.4f} nats, standard error {difference.stderr:.4f}"
    )
    print(f"no other mixture beats these on every text: {len(board.pareto())}")

    print("\nwhat each partition does to the loss (below zero it helps)")
    print(board.effects()[["shapley", "shapley_lower", "shapley_upper"]].round(4).to_string())

    first, second = board.best_of_size[2].partitions
    print(f"\nmore and more of {first} beside {second}")
    for weight in (0.1, 0.5, 0.9):
        row = ablate.score(pool, ablate.Mixture.of({first: weight, second: 1 - weight}))
        print(f"  {weight:.1f}: {row.objective:.4f}")

    print("\nthe three lowest losses of all merges, from the table")
    frame = board.to_pandas()
    merges = frame[(frame.kind == "proxy") & (frame["merge"] == "linear")]
    print(merges.nsmallest(3, "objective")[["partitions", "weights", "objective"]].to_string())


def write_study(folder: Path) -> None:
    """Write study.yaml and its texts, unless there is a study."""
    if (folder / "study.yaml").exists():
        return
    texts = folder / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("email", "asyncio", "unittest", "logging", "seed"):
        files = sorted((library / ("" if name == "seed" else name)).glob("*.py"))
        write_text(texts / f"{name}.jsonl", "".join(file.read_text("utf-8") for file in files))
    write_text(texts / "reference.jsonl", "".join(topics[name] for name in sorted(topics)))
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text as JSON lines, one document for each PIECE characters."""
    pieces = [text[at : at + PIECE] for at in range(0, min(len(text), MOST), PIECE)]
    lines = "".join(json.dumps({"text": piece}) + "\n" for piece in pieces)
    path.write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ablate.UserError as error:
        sys.exit(f"explore: {error}")
