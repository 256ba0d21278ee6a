"""Documents to partitions to units to tokens: three passes over files, each spread over tasks.

1. scan: hashes, sizes and held-out n-grams of every document; then duplicates are found and the
   held-out split is made. 2. encode: contaminated documents are dropped, the rest tokenized, file
   by file. 3. pack: parts are put together in file order and cut into units; held-out documents
   that other partitions' training text covers are left out of evaluation.

Memory holds about 60 bytes per document and 8 per word of evaluation text, never the text.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ablate.corpus.inputs import inputs_of, outputs_of, what_changed
from ablate.corpus.job import Making, MapTasks
from ablate.corpus.making import make
from ablate.corpus.pieces import pieces_of
from ablate.corpus.values import Corpus, read_corpus
from ablate.errors import WorkspaceError
from ablate.progress import note, tell
from ablate.stores import TEMPORARY_PREFIX, fetched, forget, kept, settled
from ablate.study import Study
from ablate.workspace import Workspace, remove, temporary_folder, write_json


def prepare(study: Study, workspace: Workspace, map_tasks: MapTasks) -> Corpus:
    """Return the corpus of a study, made where it is missing, incomplete, altered or outdated.

    The result depends on the study's corpus keys and the contents of its sources alone, not on
    workers. Raises CorpusError in one line that names file and line, or key.
    """
    pieces = pieces_of(study)
    inputs = inputs_of(study, pieces)
    there = _read(workspace)
    if there is not None:
        reason = what_changed(there, inputs, workspace)
        if reason is None:
            tell("skipped", what="corpus", why="complete, its inputs and files unchanged")
            return there
        note(f"corpus: made again, {reason}")
    for left_over in workspace.corpus.glob(f"{TEMPORARY_PREFIX}*/"):
        shutil.rmtree(left_over, ignore_errors=True)  # of a process that was killed
    with temporary_folder(workspace.corpus) as folder:
        making = Making(study=study, pieces=pieces, folder=folder, map_tasks=map_tasks)
        corpus = make(making, inputs)
        # Without corpus.json there is no corpus: none that mixes old and new files.
        remove(workspace.corpus_json)
        _publish(fetched(folder / "final"), workspace.corpus)
        forget(folder)
    complete = replace(corpus, inputs={**inputs, "outputs": outputs_of(corpus, workspace)})
    write_json(workspace.corpus_json, complete.to_json())
    return complete


def _read(workspace: Workspace) -> Corpus | None:
    try:
        return read_corpus(workspace)
    except WorkspaceError as error:
        note(f"corpus: made again, {error}")
        return None


def _publish(made: Path, corpus: Path) -> None:
    """Rename finished files into place, folder by folder."""
    for path in sorted(made.rglob("*")):
        if path.is_file():
            final = corpus / path.relative_to(made)
            final.parent.mkdir(exist_ok=True)
            with settled(final):
                path.replace(final)
                kept(final)
