"""The study: what is asked. It alone defines results and fingerprints.

Relative paths are taken from the folder of the study file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BeforeValidator, Field, model_validator

from ablate.harmless import without_secrets
from ablate.settings import (
    Float,
    Int,
    Name,
    Plain,
    Settings,
    apply_overrides,
    build,
    parse_number,
    read_yaml,
    shortened,
    texts_of,
)
from ablate.study_paths import Places
from ablate.workspace import Workspace

SampleBy = Literal["line", "paragraph", "document"]


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _path_object(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _option(value: Any) -> Any:
    number = value if isinstance(value, bool) else parse_number(value)
    if not isinstance(number, int | float) or not math.isfinite(number):
        raise ValueError(f"must be a finite number, or true or false, got {shortened(value)}")
    return number


Names = Annotated[tuple[str, ...], BeforeValidator(_list)]


class Texts(Settings):
    """Where documents are read from."""

    path: str = Field(min_length=1, description="A file, folder, glob or Hugging Face hub id.")
    text: str = Field("text", description="Column or key that holds the text.")
    split: str = Field("train", description="Split of a hub data set.")
    sample_by: SampleBy = Field(
        "line", description="What one document is in a plain text file (.txt, .md, ...)."
    )


TextsT = TypeVar("TextsT", bound=Texts)


class Source(Texts):
    """Training documents that become one partition, or one for each value of some columns."""

    partition: Name | None = Field(None, min_length=1, description="Name of the one partition.")
    partition_by: Names | None = Field(
        None, min_length=1, description="Columns whose values, joined by '-', name the partition."
    )
    max_tokens: Int | None = Field(
        None, gt=0, description="Keep the first so many tokens, in file-then-line order."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.partition is None) == (self.partition_by is None):
            raise ValueError(
                f"exactly one of partition and partition_by must be given for path {self.path}"
            )
        return self


class SeedSource(Texts):
    """Documents of the seed model's own pre-training."""

    max_tokens: Int | None = Field(
        None, gt=0, description="Keep the first so many tokens, in file-then-line order."
    )


class HeldOut(Settings):
    """Which documents of a partition are kept for evaluation."""

    documents: Float = Field(
        0.02, ge=0, lt=1, description="Share of documents, chosen by the hash of their text."
    )


class Decontaminate(Settings):
    """Removal of training documents that overlap with evaluation text."""

    ngram: Int = Field(13, ge=1, description="Words in an n-gram (lower-cased, split at spaces).")
    max_overlap: Float = Field(
        0.3, ge=0, le=1, description="A document is dropped above this share of shared n-grams."
    )


class CorpusSettings(Settings):
    """Partitions and base units."""

    sources: tuple[Source, ...] = Field((), description="Candidate training documents.")
    unit_tokens: Int = Field(2_000_000, gt=1, description="Tokens in a base unit.")
    short_units: Literal["error", "allow", "repeat"] = Field(
        "error", description="A partition below one unit: refuse, one short unit, or repeat it."
    )
    heldout: HeldOut = Field(HeldOut(), description="The held-out split of every partition.")
    decontaminate: Decontaminate | None = Field(Decontaminate(), description="null = off.")


class TrainTokenizer(Settings):
    """A byte-level BPE tokenizer trained on the seed sources."""

    vocab_size: Int = Field(8192, ge=258, le=2**31, description="Entries, specials included.")


class TokenizerSettings(Settings):
    """The tokenizer of every model of the study; default: the one beside the model."""

    path: str | None = Field(None, description="A tokenizer folder or hub id.")
    train: TrainTokenizer | None = Field(None, description="Train one on the seed sources.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.path is not None and self.train is not None:
            raise ValueError("at most one of tokenizer.path and tokenizer.train must be given")
        return self


class ModelSettings(Settings):
    """The architecture, or a checkpoint to start from."""

    path: str | None = Field(None, description="A checkpoint folder or hub id (causal LM).")
    preset: Literal["tiny", "130m", "1b"] | None = Field(None, description="A built-in shape.")
    overrides: Plain = Field({}, description="Keys of the preset's config to change.")
    trust_remote_code: bool = Field(False, description="Run model code that a checkpoint brings.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.path is None) == (self.preset is None):
            raise ValueError("exactly one of model.path and model.preset must be given")
        if self.path is not None and self.overrides:
            raise ValueError("model.overrides must be empty with model.path; they change presets")
        return self


class SeedSettings(Settings):
    """The seed model's own pre-training; empty when `model.path` is already trained."""

    sources: tuple[SeedSource, ...] = Field((), description="Documents to pre-train on.")
    tokens: Int | None = Field(None, gt=0, description="Tokens to train on; null = one pass.")
    learning_rate: Float | None = Field(None, gt=0, description="null = train.learning_rate.")
    schedule: Literal["constant", "cosine", "wsd"] | None = Field(
        None, description="null = train.schedule."
    )
    warmup: Float | None = Field(None, ge=0, description="null = train.warmup.")


class ReplaySettings(Settings):
    """General text that is mixed into every unit's own."""

    fraction: Float = Field(
        gt=0, lt=1, description="Its share of all tokens that a unit is trained on."
    )
    from_: Literal["seed"] = Field(
        "seed", alias="from", description="Where it comes from: the seed's sources."
    )


class TrainSettings(Settings):
    """The recipe, the same for every unit."""

    tokens_per_unit: Int | None = Field(
        None, gt=0, description="null = unit_tokens, one pass; more = further passes, reshuffled."
    )
    sequence_length: Int = Field(1024, ge=2, description="Tokens in a sequence.")
    batch_tokens: Int = Field(
        65_536, gt=0, description="Tokens in one optimizer step; fewer where there are not so many."
    )
    learning_rate: Float = Field(3e-4, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "cosine", "wsd"] = Field("constant", description="Its shape.")
    warmup: Float = Field(0.02, ge=0, description="Below 1 a share of the steps, else steps.")
    decay: Float = Field(0.2, ge=0, le=1, description="wsd: share of the steps that decay.")
    final_learning_rate: Float = Field(
        0.1, ge=0, le=1, description="cosine, wsd: last rate as a share of the peak."
    )
    weight_decay: Float = Field(0.1, ge=0, description="AdamW weight decay, on matrices only.")
    betas: tuple[Float, Float] = Field((0.9, 0.95), description="AdamW betas.")
    epsilon: Float = Field(1e-8, gt=0, description="AdamW epsilon.")
    clip: Float | None = Field(1.0, gt=0, description="Gradient norm limit; null = off.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the passes.")
    carry_moments: bool = Field(False, description="Start with the seed's Adam moments.")
    replay: ReplaySettings | None = Field(
        None,
        description="General text mixed into each unit's training, e.g. {fraction: 0.5, from: "
        "seed}; mixtures that `validate` trains have none.",
    )
    average: Float | None = Field(
        None,
        gt=0,
        le=1,
        description="A unit is the mean of its weights after this last share of its steps; null = "
        "after the last one; mixtures that `validate` trains have none.",
    )
    rng_seed: Int = Field(0, ge=0, lt=2**32, description="Token order and initial weights.")

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"train.batch_tokens must be a multiple of train.sequence_length "
                f"{self.sequence_length}, got {self.batch_tokens}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train.betas must be in [0, 1), got {self.betas}")
        return self


class EvaluateSettings(Settings):
    """What models are scored on, beside each partition's held-out split."""

    domains: dict[Name, Annotated[Texts, BeforeValidator(_path_object)]] = Field(
        {}, description="Evaluation domains: a path, or {path, text, split, sample_by}."
    )
    tokens_per_domain: Int = Field(100_000, ge=2, description="The first so many tokens count.")
    sequence_length: Int | None = Field(None, ge=2, description="null = train.sequence_length.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Weights while scoring.")


class SpaceSettings(Settings):
    """Which mixtures may be proposed."""

    kind: Literal["subsets", "simplex"] = Field(
        "subsets", description="Subsets of partitions, or any proportions of them (simplex)."
    )
    min_size: Int = Field(1, ge=1, description="Fewest partitions.")
    max_size: Int | None = Field(None, ge=1, description="Most partitions; null = all.")
    include: Names = Field((), description="Partitions that every mixture has.")
    exclude: Names = Field((), description="Partitions that none has.")
    max_tokens: Int | None = Field(None, gt=0, description="Most trained tokens behind it.")
    groups: dict[Name, Names] = Field(
        {}, description="Groups of partitions (names or patterns like cc-*): searched first."
    )
    bounds: dict[str, tuple[Float, Float]] = Field(
        {}, description="simplex: [least, most] proportion of a partition."
    )
    min_weight: Float = Field(
        0.001, gt=0, lt=1, description="simplex: least proportion of a member; less is none."
    )
    target_tokens: Int | None = Field(
        None, gt=0, description="simplex: tokens of the training to come; caps proportions."
    )
    max_epochs: Float = Field(
        4, gt=0, description="simplex: most passes over a partition's text in target_tokens."
    )
    available: dict[str, Int] = Field(
        {}, description="simplex: tokens of text that a partition really has; default: the corpus."
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name, (least, most) in self.bounds.items():
            if not 0 <= least <= most <= 1:
                raise ValueError(
                    f"search.space.bounds must hold 0 <= least <= most <= 1 for '{name}', got "
                    f"[{least}, {most}]"
                )
        return self


class MergeMethod(Settings):
    """A merge method with its settings."""

    method: str = Field(
        "linear",
        description="linear, task_arithmetic, ties, dare, fisher, regmean, ensemble (no merge: "
        "token probabilities are averaged), or package.module:function.",
    )
    scale: Float | None = Field(
        None,
        gt=0,
        description="linear: s in seed + s * sum of deltas; null = the average (1/members).",
    )
    options: dict[str, Annotated[bool | int | float, BeforeValidator(_option)]] = Field(
        {}, description="Options of the method, e.g. {density: 0.2} of ties; see `ablate.merge`."
    )


class MergeSettings(MergeMethod):
    """How unit models become one."""

    weighting: Literal["micro", "macro"] = Field(
        "micro", description="Units count the same (micro), or partitions do (macro)."
    )
    alternatives: tuple[MergeMethod, ...] = Field(
        (),
        description="Further merges by which every mixture is scored as well, e.g. "
        "[{method: ties}]; its best one counts.",
    )

    @property
    def methods(self) -> tuple[MergeMethod, ...]:
        """Return every merge by which a mixture is scored, the study's first one first."""
        return (self, *self.alternatives)


class ObjectiveSettings(Settings):
    """The number to make small. `mean: all` = domains and held-out splits alike."""

    mean: Literal["all", "domains", "partitions"] | tuple[str, ...] | None = Field(
        None,
        description="Mean loss over all, over evaluation domains, over held-out splits, or over a list.",
    )
    weighted: dict[str, Float] | None = Field(None, description="Weighted mean loss.")
    domain: str | None = Field(None, description="One domain's loss.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in ("mean", "weighted", "domain") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of mean, weighted and domain must be given, got {given or 'none'}"
            )
        if self.weighted is not None and (
            any(weight < 0 for weight in self.weighted.values()) or not sum(self.weighted.values())
        ):
            raise ValueError("weighted must have weights >= 0 that are not all 0")
        if self.mean == ():
            raise ValueError("mean must name at least one domain")
        if isinstance(self.mean, tuple) and len({*self.mean}) < len(self.mean):
            raise ValueError(
                f"mean must name each domain once, got {list(self.mean)}; use weighted to count one "
                "more"
            )
        return self


class RacingSettings(Settings):
    """Stopping mixtures that cannot win before all tokens are spent on them."""

    rule: Literal["paired", "asha"] = Field(
        "paired",
        description="paired: stop what a sequential test finds worse than the leader; asha: "
        "successive halving, stop all but the best 1/eta of those before (no error rate).",
    )
    shares: tuple[Float, ...] = Field(
        (0.0625, 0.125, 0.25, 0.5), description="Shares of the tokens after which one may stop."
    )
    alpha: Float = Field(
        0.01, gt=0, lt=1, description="paired: probability of stopping the mixture that would win."
    )
    eta: Int = Field(4, ge=2, description="asha: one in so many goes on.")
    at_once: Int = Field(
        8, ge=1, description="Most mixtures in the race at once: no more evaluators are used."
    )

    @model_validator(mode="after")
    def _growing(self) -> Self:
        steps = (0.0, *self.shares, 1.0)
        if not self.shares or not all(a < b for a, b in pairwise(steps)):
            raise ValueError(
                f"search.racing.shares must grow between 0 and 1, got {list(self.shares)}"
            )
        return self


class SearchSettings(Settings):
    """The search over mixtures."""

    space: SpaceSettings = Field(SpaceSettings(), description="Which mixtures may be proposed.")
    merge: MergeSettings = Field(MergeSettings(), description="How unit models become one.")
    algorithm: str = Field(
        "auto",
        description="auto, exhaustive, random, sobol, greedy-forward, greedy-backward (each also "
        "-swaps), tpe, cma-es, gaussian-process, nsga2, surrogate, gradient, ensemble-first, or "
        "package.module:function.",
    )
    predictor: Literal["pairwise", "linear", "gaussian", "trees", "mixing-law", "auto"] = Field(
        "pairwise",
        description="What surrogate fits to the scores; auto = what foretells left-out ones best.",
    )
    trials: Int = Field(500, ge=1, description="Most mixtures that are scored.")
    objective: ObjectiveSettings = Field(
        ObjectiveSettings(mean="all"), description="The number to make small."
    )
    objectives: dict[Name, ObjectiveSettings] = Field(
        {}, description="Several goals by name, for nsga2 and the Pareto set; `objective` ranks."
    )
    racing: RacingSettings | None = Field(
        None, description="Stop hopeless mixtures early, e.g. {rule: paired}; null = off."
    )
    rng_seed: Int = Field(0, ge=0, lt=2**32, description="Seed of the algorithm.")


class ValidateSettings(Settings):
    """Which mixtures are trained for real (verb `validate`)."""

    mixtures: Int = Field(16, ge=1, description="How many.")
    sizes: tuple[Int, ...] | None = Field(None, description="null = stratified over all sizes.")
    tokens: Literal["proportional", "fixed"] = Field(
        "proportional", description="Tokens grow with the units of the mixture, or not."
    )
    total_tokens: Int | None = Field(
        None, ge=1, description="fixed: tokens of every mixture; null = those of one unit."
    )
    replicates: Int = Field(
        1, ge=1, description="Trainings of each mixture, each with its own order of the text."
    )
    rounds: Int = Field(
        0, ge=0, description="Mixtures beyond these, in all; each tells most about which is best."
    )
    rng_seed: Int = Field(0, ge=0, lt=2**32, description="Seed of the choice and the bootstrap.")

    @model_validator(mode="after")
    def _some_sizes(self) -> Self:
        if self.sizes is not None and (not self.sizes or min(self.sizes) < 1):
            raise ValueError(
                f"sizes must be numbers of partitions, 1 or more, got {list(self.sizes)}; "
                "leave it out for all"
            )
        return self


class Study(Settings):
    """One question about one corpus: a typed YAML file."""

    name: Name = Field(min_length=1, max_length=200, description="Shown in tables and logs.")
    workspace: str = Field(
        min_length=1, description="All state: a folder that the cluster shares, or s3://…, gs://…"
    )
    corpus: CorpusSettings = Field(CorpusSettings(), description="Partitions and base units.")
    units: dict[Name, Names] = Field(
        {}, description="Unit models trained elsewhere: partition -> checkpoint folders."
    )
    tokenizer: TokenizerSettings = Field(TokenizerSettings(), description="The tokenizer.")
    model: ModelSettings = Field(description="The architecture, or a checkpoint.")
    seed: SeedSettings = Field(SeedSettings(), description="The seed model's pre-training.")
    train: TrainSettings = Field(TrainSettings(), description="The recipe of every unit.")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="What models are scored on.")
    search: SearchSettings = Field(SearchSettings(), description="The search over mixtures.")
    validate_: ValidateSettings | None = Field(
        None, alias="validate", description="Mixtures to train for real; null = none."
    )

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        for key, text in texts_of(self.model_dump(mode="json", by_alias=True)):
            if without_secrets(text) != text:
                raise ValueError(
                    f"{key} must hold no password or token, got one: the study is copied into its "
                    "workspace and sent to clusters; keep secrets in the environment (HF_TOKEN) and "
                    "mount private stores"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.corpus.sources and not self.units:
            raise ValueError("corpus.sources must name at least one source, got none")
        space = self.search.space
        if space.max_size is not None and space.max_size < space.min_size:
            raise ValueError(
                f"search.space.min_size <= max_size must hold, got {space.min_size} > "
                f"{space.max_size}"
            )
        both = set(space.include) & set(space.exclude)
        if both:
            raise ValueError(
                f"search.space.include and exclude must not share names, got {sorted(both)}"
            )
        if self.model.preset and not self.seed.sources:
            raise ValueError(
                "seed.sources must be given with model.preset: the units start from one seed model"
            )
        if self.model.preset and not (self.tokenizer.path or self.tokenizer.train):
            raise ValueError("tokenizer.path or tokenizer.train must be given with model.preset")
        if self.tokenizer.train and not self.seed.sources:
            raise ValueError("seed.sources must be given with tokenizer.train: it learns from them")
        if self.tokenizer.train and self.model.path:
            raise ValueError("tokenizer.train must not stand with model.path; use its tokenizer")
        if self.train.replay is not None and not self.seed.sources:
            raise ValueError("seed.sources must be given with train.replay: its text is replayed")
        self._require_total_tokens()
        named = [s.partition for s in self.corpus.sources if s.partition is not None]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(
                f"each partition must have one source, got two for {twice}; join them in one glob "
                "or folder, or rename one"
            )
        shared = {s.partition for s in self.corpus.sources if s.partition} & set(
            self.evaluate.domains
        )
        if shared:
            raise ValueError(
                f"a partition and an evaluation domain must not share a name, got {sorted(shared)}"
            )
        return self

    def _require_total_tokens(self) -> None:
        settings = self.validate_
        if settings is None or settings.total_tokens is None:
            return
        if settings.tokens != "fixed":
            raise ValueError(
                "validate.total_tokens must stand with validate.tokens: fixed, got "
                f"{settings.tokens}; set that, or leave out total_tokens"
            )
        if settings.total_tokens < self.train.sequence_length:
            raise ValueError(
                "validate.total_tokens must be at least train.sequence_length = "
                f"{self.train.sequence_length}, got {settings.total_tokens}; raise it"
            )

    @property
    def evaluation_length(self) -> int:
        """Return the tokens in an evaluation block."""
        return self.evaluate.sequence_length or self.train.sequence_length

    def open_workspace(self) -> Workspace:
        """Return this study's workspace as it stands; nothing is created."""
        return Workspace.open(self.workspace).refresh()


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Return the study in a YAML file with `key=value` overrides applied.

    Raises StudyError in one line that names every offending key.
    """
    file = Path(path)
    tree = apply_overrides(read_yaml(file), overrides)
    study = build(Study, tree, str(file))
    return resolve_paths(study, file.resolve().parent)


def resolve_paths(study: Study, folder: Path) -> Study:
    """Return the study with its paths, workspace included, absolute; ids of the hub stay."""
    places = Places(folder)
    units = {n: tuple(map(places.rooted, paths)) for n, paths in study.units.items()}
    workspace = places.workspace(study.workspace)
    moved = study.model_copy(update={"workspace": workspace, "units": units})
    return replace_paths(moved, places.texts, places.checkpoint)


def replace_paths(
    study: Study, texts: Callable[[str], str], checkpoints: Callable[[str], str]
) -> Study:
    """Return the study with other paths of its texts, and of its model and tokenizer.

    The workspace and the folders of `units` stay.
    """

    def moved(item: TextsT) -> TextsT:
        return item.model_copy(update={"path": texts(item.path)})

    def optional(path: str | None) -> str | None:
        return None if path is None else checkpoints(path)

    corpus, seed, evaluate = study.corpus, study.seed, study.evaluate
    domains = {name: moved(domain) for name, domain in evaluate.domains.items()}
    return study.model_copy(
        update={
            "corpus": corpus.model_copy(update={"sources": tuple(map(moved, corpus.sources))}),
            "seed": seed.model_copy(update={"sources": tuple(map(moved, seed.sources))}),
            "model": study.model.model_copy(update={"path": optional(study.model.path)}),
            "tokenizer": study.tokenizer.model_copy(
                update={"path": optional(study.tokenizer.path)}
            ),
            "evaluate": evaluate.model_copy(update={"domains": domains}),
        }
    )


def to_yaml(study: Study) -> str:
    """Return the resolved study as YAML that `load_study` reads back to an equal study."""
    tree: Mapping[str, Any] = study.model_dump(mode="json", by_alias=True)
    # YAML would fold Unicode's own ends of lines; as escapes they stay what they are.
    plain = not any(end in text for _, text in texts_of(tree) for end in "\x85\u2028\u2029")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=plain, width=100)
