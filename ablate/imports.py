"""Models that were trained elsewhere: the seed checkpoint, and unit models that a study names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from ablate.corpus import Corpus
from ablate.errors import CheckpointError, StudyError
from ablate.models.build import check_preset
from ablate.models.checkpoint import (
    checkpoint_digest,
    intact_digest,
    load_flat,
    read_training,
    save_checkpoint,
)
from ablate.models.layout import Layout, constants_of, flatten, layout_of, tensor_digest
from ablate.models.load import load_model
from ablate.models.pool import SeedModel, UnitModel
from ablate.models.sources import (
    model_code,
    read_config,
    read_small_json,
    resolve_folder,
    weight_files,
)
from ablate.models.tensor_file import read_header
from ablate.study import Study
from ablate.workspace import Workspace, file_digest, fingerprint


def import_seed(study: Study, corpus: Corpus, workspace: Workspace) -> SeedModel:
    """Return the seed made from `model.path`: a float32 copy in the workspace, written once.

    Raises CheckpointError when the checkpoint cannot be used or does not fit the tokenizer.
    """
    source, trusted = study.model.path or "", study.model.trust_remote_code
    model = load_model(source, trust_remote_code=trusted)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if vocabulary < corpus.tokenizer.vocab_size:
        raise CheckpointError(
            f"the tokenizer's {corpus.tokenizer.vocab_size} entries must fit the embedding of "
            f"{source}, got {vocabulary} rows; name the model's own tokenizer under tokenizer.path"
        )
    layout = layout_of(model)
    flat = flatten(model, layout)
    digest = fingerprint({"weights": tensor_digest(flat), "layout": layout.fingerprint})
    code = model_code(source, trust_remote_code=trusted)
    mark = fingerprint(
        {
            "imported": digest,
            "tokenizer": corpus.tokenizer.fingerprint,
            **({"code": [file_digest(file) for file in code]} if code else {}),
        }
    )
    folder = workspace.seed_folder(mark)
    kept = intact_digest(folder)
    if kept is None:
        kept = save_checkpoint(
            folder,
            config=model.config,
            layout=layout,
            flat=flat,
            tokenizer_folder=workspace.tokenizer,
            training={"kind": "seed", "fingerprint": mark, "imported_from": source},
            constants=constants_of(model),
            code=code,
        )
    return SeedModel(fingerprint=mark, folder=str(folder.relative_to(workspace.root)), digest=kept)


def imported_units(
    study: Study, corpus: Corpus, seed_folder: Path, layout: Layout
) -> list[UnitModel]:
    """Return the units that the study brings in, each checked against the seed's layout.

    Their trained tokens are what their training.json says, else the partition's unit, else 0.
    """
    found = []
    for partition, folders in sorted(study.units.items()):
        if partition in corpus.domains and corpus.domains[partition].kind == "domain":
            raise StudyError(
                f"a partition and an evaluation domain must not share a name, got '{partition}' "
                "under units"
            )
        for index, folder in enumerate(folders):
            path = Path(folder)
            if not path.is_dir():
                raise StudyError(
                    f"units.{partition} must name checkpoint folders, got {folder}; no such folder"
                )
            _same_tokenizer(path, seed_folder)
            known = (read_training(path) or {}).get("digest")
            load_flat(path, layout, digest=known)
            digest = known or checkpoint_digest(path)
            found.append(
                UnitModel(
                    partition=partition,
                    index=index,
                    fingerprint=fingerprint({"imported": digest, "layout": layout.fingerprint}),
                    folder=str(path.resolve()),
                    digest=digest,
                    tokens=_tokens(path, corpus, partition, index),
                )
            )
    return found


def check_imports(study: Study) -> None:
    """Refuse a preset that cannot be, and checkpoint folders that cannot be read.

    Of checkpoints only configs and headers are read; whether they fit the seed is known, and
    checked, before anything is trained.
    """
    bare = sorted(name for name, folders in study.units.items() if not folders)
    if bare:
        raise StudyError(
            f"units.{bare[0]} must name at least one checkpoint folder, got none; name one, or "
            "leave the partition out"
        )
    folders = [folder for folders in study.units.values() for folder in folders]
    if study.model.preset is not None:
        config = check_preset(study.model, study.train.sequence_length)
        remedy = f"set model.overrides.max_position_embeddings={study.evaluation_length}"
        _require_positions(study, config, f"preset {study.model.preset}", remedy)
    if study.model.path is not None:
        trusted = study.model.trust_remote_code
        seed = resolve_folder(study.model.path, trust_remote_code=trusted)
        folders.append(str(seed))
        config = read_config(seed, trust_remote_code=trusted)
        _require_positions(study, config, str(seed), "name another model")
    for folder in folders:
        path = Path(folder)
        for file in weight_files(path):
            read_header(file)
        read_config(path, trust_remote_code=study.model.trust_remote_code)


def _require_positions(study: Study, config: PretrainedConfig, model: str, remedy: str) -> None:
    most = getattr(config, "max_position_embeddings", None)
    for key, length in (
        ("train.sequence_length", study.train.sequence_length),
        ("evaluate.sequence_length", study.evaluation_length),
    ):
        if isinstance(most, int) and length > most:
            raise StudyError(
                f"{key} must be at most the {most} positions of {model}, got {length}; lower it, "
                f"or {remedy}"
            )


def _same_tokenizer(folder: Path, seed_folder: Path) -> None:
    """Refuse a unit whose tokenizer is another one; a folder without one is taken at its word."""
    theirs, ours = folder / "tokenizer.json", seed_folder / "tokenizer.json"
    if not (theirs.is_file() and ours.is_file()):
        return
    if _vocabulary(theirs) != _vocabulary(ours):
        raise CheckpointError(
            f"unit models must share the seed's tokenizer, got another vocabulary in {theirs}; "
            "bring in models that were trained from this seed"
        )


def _vocabulary(path: Path) -> Any:
    """Return the vocabulary in a tokenizer.json; raise CheckpointError when it has none."""
    value = read_small_json(path)
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise CheckpointError(
            f"{path} must be a tokenizer with a vocabulary, got something else; copy the "
            "checkpoint again"
        )
    return model["vocab"]


def _tokens(folder: Path, corpus: Corpus, partition: str, index: int) -> int:
    trained = (read_training(folder) or {}).get("tokens")
    if isinstance(trained, int):
        return trained
    info = corpus.partitions.get(partition)
    return info.unit_tokens[index] if info and index < len(info.unit_tokens) else 0
