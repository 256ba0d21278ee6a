"""What a checkpoint folder holds, looked at before anything is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from ablate.errors import CheckpointError
from ablate.harmless import without_secrets
from ablate.models.sizes import wrong_size
from ablate.settings import cut, shortened
from ablate.stores import fetched
from ablate.workspace import read_small, strange_file

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
MAX_JSON_BYTES = 64 << 20
COMMON_SIZES = (
    "num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "intermediate_size",
)  # fmt: skip
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
CONFIG_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    ArithmeticError,
    RecursionError,
    StrictDataclassError,
)


def resolve_folder(
    path: str | Path, *, trust_remote_code: bool = False, revision: str | None = None
) -> Path:
    """Return the folder of a checkpoint; a hub id is downloaded where no such path exists.

    `revision` is the commit of a hub id's files, by default the newest. Raises CheckpointError when
    it is neither.
    """
    folder = fetched(path)
    if folder.is_dir():
        return folder
    if folder.exists() or not HUB_ID.fullmatch(str(path)):
        what = "a file" if folder.exists() else "nothing"
        raise CheckpointError(
            f"a checkpoint must be a folder or a hub id, got {what} at {cut(str(path))}; name the "
            "folder that holds config.json"
        )
    patterns = [*HUB_FILES, "*.py"] if trust_remote_code else HUB_FILES
    return _downloaded(str(path), patterns, revision)


def hub_revision(name: str) -> str:
    """Return the commit of a hub id's files: the newest, or the cached one where no hub answers.

    Raises CheckpointError when there is no such model.
    """
    return _downloaded(name, ["config.json"]).name


def _downloaded(name: str, patterns: list[str], revision: str | None = None) -> Path:
    """Return the snapshot of a hub id with the files of some patterns; its name is its commit."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"a checkpoint must be a folder or a hub id, got no such folder and no hub model for "
            f"{shortened(name)} ({reason}); check the name and the network"
        ) from error


def model_code(path: str | Path, *, trust_remote_code: bool) -> list[Path]:
    """Return the files of model code that a checkpoint brings; none unless it is trusted.

    What is written from the checkpoint needs them: its config names classes in them.
    """
    if not trust_remote_code:
        return []
    return sorted(resolve_folder(path, trust_remote_code=True).glob("*.py"))


def read_small_json(path: Path) -> Any:
    """Return the JSON of a small file; raise CheckpointError when it is missing or none."""
    try:
        return json.loads(read_small(path, MAX_JSON_BYTES))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"a checkpoint folder must hold {path.name}, got none in {path.parent}; name the "
            "folder that save_pretrained wrote"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} must be JSON of at most {MAX_JSON_BYTES >> 20} MiB ({first_line(error)}); copy "
            "the checkpoint again"
        ) from error


def read_config(folder: Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """Return a checkpoint's config, with the defaults of the installed transformers.

    Raises CheckpointError when it is missing, no config of a known model, or needs model code
    of its own that was not asked for.
    """
    values = read_small_json(folder / "config.json")
    if (strange := strange_file(folder)) is not None:
        raise CheckpointError(
            f"a checkpoint must be plain files, got a pipe, socket or device at {strange}; copy the "
            "checkpoint again"
        )
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise CheckpointError(
            f"{folder / 'config.json'} must name a model_type, got {shortened(kind)}; use a "
            "transformers checkpoint"
        )
    if kind not in CONFIG_MAPPING and not trust_remote_code:
        raise CheckpointError(
            f"{folder / 'config.json'} must have a model_type that transformers knows, got "
            f"{shortened(kind)}; if the checkpoint brings model code that you trust, set "
            "model.trust_remote_code=true"
        )
    if (problem := wrong_size(values)) is not None:
        raise CheckpointError(_unbuildable(folder, problem))
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        config.return_dict = True  # how its author called it; here outputs are asked for by name
        # What the file leaves out has defaults by now, and a family's own names the common ones.
        # As plain values: asked for by name, what differs between layers is an error.
        text = config.get_text_config()
        plain, names = text.to_dict(), text.attribute_map
        common = {key: plain.get(names.get(key, key)) for key in COMMON_SIZES}
    except CONFIG_ERRORS as error:
        raise CheckpointError(
            f"{folder / 'config.json'} must be a config that transformers reads: "
            f"{first_line(error)}; mend it or copy the checkpoint again"
        ) from error
    if (problem := wrong_size(common)) is not None:
        raise CheckpointError(_unbuildable(folder, problem))
    return config  # type: ignore[no-any-return]


def _unbuildable(folder: Path, problem: str) -> str:
    return (
        f"{folder / 'config.json'} must make a model: {problem}; mend it or copy the checkpoint "
        "again"
    )


def first_line(error: BaseException) -> str:
    """Return the start of an error's text, on one line."""
    # Hidden before the cut: half a secret would not be known as one.
    return " ".join(without_secrets(str(error)).split())[:200] or type(error).__name__


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder: one, or the shards of its index.

    Raises CheckpointError when there are none, or the index points outside the folder.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"a checkpoint must be a folder, got {'a file' if folder.exists() else 'nothing'} at "
            f"{folder}; name the folder that holds config.json"
        )
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise CheckpointError(
            f"weights must be safetensors: {folder} has only pickled weights, which can run code "
            "when read; convert it with transformers' save_pretrained on a machine you trust"
        )
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"weights must be a whole model: {folder} is an adapter; merge it into its base "
            "model (peft's merge_and_unload) and save that"
        )
    raise CheckpointError(
        f"a checkpoint folder must hold {WEIGHTS} or {INDEX}, got neither in {folder}; copy or "
        "train it again"
    )


def _shards(folder: Path) -> list[Path]:
    index = read_small_json(folder / INDEX)
    table = index.get("weight_map") if isinstance(index, dict) else None
    names = set(table.values()) if isinstance(table, dict) and _texts(table) else set()
    if not names:
        raise CheckpointError(
            f"{folder / INDEX} must map tensor names to files (weight_map); copy the checkpoint "
            "again"
        )
    root = folder.resolve()
    # A hub cache keeps files as links from snapshots/<revision>/ to blobs/.
    allowed = {root, root.parent.parent / "blobs"}
    files = [folder / name for name in sorted(names)]
    for path in files:
        if path.name != str(path.relative_to(folder) if path.is_relative_to(folder) else ""):
            outside = True
        else:
            outside = path.resolve().parent not in allowed
        if outside:
            raise CheckpointError(
                f"shards must lie in the checkpoint's folder: {folder / INDEX} names "
                f"'{path}'; copy the checkpoint again from a source you trust"
            )
    return files


def _texts(table: dict[str, Any]) -> bool:
    return all(isinstance(value, str) and value for value in table.values())


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' reports and bars off the terminal; what matters is raised instead."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
