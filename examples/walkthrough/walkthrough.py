# %% [markdown]
# # Which text should the model train on?
#
# A walk through one study, from text to a checked answer, in a few minutes on two CPU cores. Open
# this file as a notebook (VS Code and Jupytext read its cells as they are), or run
# `python walkthrough.py FOLDER`: it prints as it goes, and writes `FOLDER/walkthrough.html`, this
# page with its results.

# %%
import json
import sys
import sysconfig
import textwrap
from pathlib import Path
from pydoc_data.topics import topics

import ablate

if __name__ == "__main__" and "get_ipython" not in globals():
    from page import run_script  # beside this file

    sys.exit(run_script(__file__))

# %% [markdown]
# ## The question
#
# There are three bodies of text, called *partitions*: three packages of Python's standard library.
# A small model that knows a bit of Python already, the *seed*, is to become good at Python's language
# reference, which none of them holds. Which of them should it go on training on? One model could be
# trained for each of the seven combinations. `ablate` trains one for each *unit* of text, and gets the
# combinations by averaging parameters.

# %% tags=["parameters"]
FOLDER = "walkthrough-study"

# %%
folder = Path(FOLDER)
library = Path(sysconfig.get_path("stdlib"))

STUDY = """\
name: walk-through
workspace: work
corpus:
  sources:
    - {path: texts/email.jsonl, partition: email}
    - {path: texts/asyncio.jsonl, partition: asyncio}
    - {path: texts/unittest.jsonl, partition: unittest}
  unit_tokens: 25_000
  heldout: {documents: 0.1}
tokenizer: {train: {vocab_size: 1024}}
model:
  preset: tiny
  overrides: {hidden_size: 64, intermediate_size: 192, num_hidden_layers: 2, num_attention_heads: 2}
seed: {sources: [{path: texts/seed.jsonl}], tokens: 100_000, learning_rate: 4e-3}
train: {sequence_length: 64, batch_tokens: 1024, learning_rate: 2e-3, schedule: constant}
evaluate: {domains: {reference: texts/reference.jsonl}, tokens_per_domain: 2_048}
search: {objective: {mean: all}}
validate: {mixtures: 7}
"""


def write_text(name: str, text: str) -> None:
    """Write a text as documents of 1,200 characters, JSON lines."""
    pieces = [text[at : at + 1_200] for at in range(0, min(len(text), 180_000), 1_200)]
    lines = "".join(json.dumps({"text": piece}) + "\n" for piece in pieces)
    (folder / "texts" / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if not (folder / "study.yaml").exists():
    (folder / "texts").mkdir(parents=True)
    for name in ("email", "asyncio", "unittest", "seed"):
        files = sorted((library / ("" if name == "seed" else name)).glob("*.py"))
        write_text(name, "".join(file.read_text("utf-8") for file in files))
    write_text("reference", "".join(topics[name] for name in sorted(topics)))
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")

study = ablate.load_study(folder / "study.yaml")
print(study.name, "·", ", ".join(source.path for source in study.corpus.sources))

# %% [markdown]
# ## The plan
#
# Before anything runs: what it would do, and what the naive way would cost. FLOPs are of training.

# %%
work = ablate.plan(study).work
print(f"{work.runs} trainings, {work.trials} mixtures to score")
print(f"training {work.training_flops:.2e} FLOPs; the naive way {work.naive_flops:.2e}")

# %% [markdown]
# ## From text to models
#
# `prepare` splits off a held-out part of every partition, removes what stands in an evaluation text as
# well, and tokenizes. `train` trains the seed, then one model for each unit. What is done already is
# never done again, so that the cells can be run as often as one likes.

# %%
corpus = ablate.prepare(study)
for name, part in sorted(corpus.partitions.items()):
    print(f"{name}: {part.tokens:,} tokens, units of {', '.join(map(str, part.unit_tokens))}")

# %%
pool = ablate.train(study)
print(f"{len(pool.units)} unit models and their seed")

# %% [markdown]
# ## All mixtures
#
# A mixture's score is the loss of the *average* of its units' models: one merge, one evaluation.

# %%
board = ablate.search(study, pool)
for row in board.mixtures:
    print(f"{row.objective:.4f}  {' + '.join(row.partitions)}")

# %%
board.plot()

# %% [markdown]
# How much does each partition help or harm? The Shapley value is the mean change of the loss as it
# joins the others in any order; below zero, it helps.

# %%
board.effects()[["shapley", "shapley_lower", "shapley_upper"]].round(4)

# %%
board.plot_effects()

# %% [markdown]
# ## One question more
#
# Any other proportions cost one merge and one evaluation more.

# %%
first, second = board.best_of_size[2].partitions
for weight in (0.1, 0.5, 0.9):
    row = ablate.score(pool, ablate.Mixture.of({first: weight, second: 1 - weight}))
    print(f"{weight:.1f} {first}, {1 - weight:.1f} {second}: {row.objective:.4f}")

# %% [markdown]
# ## Can it be trusted?
#
# Merged models are *proxies*. `validate` trains some mixtures for real, on the same text, and compares.
# Seven of them are the fewest that calibrate the proxies; a study that decides something wants
# sixteen or more.

# %%
check = ablate.validate(study, pool, board)
print(textwrap.fill(check.headline, 88))

# %%
check.plot()

# %% [markdown]
# ## The answer
#
# Once calibrated, mixtures of all sizes are ranked by the loss that a model trained on them is
# predicted to have. (Where those left out are predicted no better than by their mean, they are not.)

# %%
board = ablate.search(study, pool)
best = board.best
print("train on", " + ".join(best.partitions))
if best.predicted_objective is not None:
    loss, lower, upper = best.predicted_objective
    print(f"predicted loss {loss:.3f}, 95 % interval {lower:.3f} to {upper:.3f}")
print("the full report:", ablate.report(study).name)
