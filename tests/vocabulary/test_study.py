"""The study file: strict, one-line errors, overrides, and the same study after a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.corpus.source_files import resolve
from ablate.errors import StudyError, UserError
from ablate.resources import Cluster, load_cluster
from ablate.study import load_study, to_yaml

TEXT = """
name: small
workspace: work
corpus:
  sources:
    - {path: "d/*.jsonl.gz", partition_by: field, max_tokens: 4e6}
    - {path: d/n.txt, partition: novels}
  unit_tokens: 20_000
model: {preset: tiny}
tokenizer: {train: {vocab_size: 4096}}
seed: {sources: [{path: d/s.txt}]}
train: {learning_rate: 3e-4, batch_tokens: 4096, sequence_length: 128}
evaluate: {domains: {ptb: data/ptb.txt}}
validate: {mixtures: 3}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(TEXT)
    return path


def test_numbers_written_as_3e_4_are_numbers_and_paths_are_the_files_own(file: Path) -> None:
    study = load_study(file)
    assert study.train.learning_rate == 3e-4
    assert study.corpus.sources[0].max_tokens == 4_000_000
    assert study.workspace == str(file.parent / "work")
    assert study.corpus.sources[0].path == str(file.parent / "d/*.jsonl.gz")
    assert study.validate_ is not None and study.validate_.mixtures == 3


def test_the_resolved_study_reads_back_as_itself(file: Path, tmp_path: Path) -> None:
    study = load_study(file)
    other = tmp_path / "elsewhere" / "study.yaml"
    other.parent.mkdir()
    other.write_text(to_yaml(study))
    assert load_study(other) == study


@pytest.mark.parametrize("text", ["é", "a\x85b", "\u2028", "\u2029 x", "日\x85本"])
def test_odd_characters_in_paths_read_back_as_themselves(file: Path, text: str) -> None:
    changes = {"workspace": str(file.parent / text)}
    study = load_study(file).model_copy(update=changes)
    file.write_text(to_yaml(study), encoding="utf-8")
    assert load_study(file) == study


@pytest.mark.parametrize(
    "path",
    ["meta-llama/Llama-3.2-1B", "Qwen/Qwen2.5-0.5B", "EleutherAI/pythia-1.4b", "gpt2",
     "mlfoundations/dclm-baseline-1.0", "allenai/c4:en.noblocklist"],
)  # fmt: skip
def test_an_id_of_the_hub_stays_unless_something_lies_there(file: Path, path: str) -> None:
    overrides = [
        f"corpus.sources.1.path={path}",
        f"seed.sources.0.path={path}",
        f"evaluate.domains.ptb={path}",
        f"model={{path: '{path}'}}",
        f"tokenizer={{path: '{path}'}}",
    ]

    def named() -> set[str | None]:
        study = load_study(file, overrides)
        return {
            study.corpus.sources[1].path, study.seed.sources[0].path, study.model.path,
            study.evaluate.domains["ptb"].path, study.tokenizer.path,
        }  # fmt: skip

    assert named() == {path}
    (file.parent / path).mkdir(parents=True)
    assert named() == {str(file.parent / path)}


def test_what_cannot_be_an_id_of_the_hub_is_the_files_own(file: Path) -> None:
    for path in ("d/x.jsonl.zst", "x.md", "./x", "a/b/c", "../x", "."):
        study = load_study(file, [f"corpus.sources.1.path={path}", f"units={{a: [{path}, m]}}"])
        assert study.corpus.sources[1].path == str(file.parent / path)
        assert study.units["a"] == (str(file.parent / path), str(file.parent / "m"))
    home = load_study(file, ["corpus.sources.1.path=~/x/*.md"])
    assert home.corpus.sources[1].path == str(Path.home() / "x/*.md")


def test_marks_of_globs_in_the_studys_own_folder_are_plain(tmp_path: Path) -> None:
    folder = tmp_path / "[2024] *?"
    (folder / "d").mkdir(parents=True)
    (folder / "study.yaml").write_text(TEXT)
    for name in ("a.jsonl.gz", "n.txt", "[s].txt"):
        (folder / "d" / name).write_text("words")
    study = load_study(folder / "study.yaml", ["seed.sources.0.path=d/[s].txt"])
    found = [resolve(source.path, "x")[0].path for source in study.corpus.sources]
    assert found == [str(folder / "d" / name) for name in ("a.jsonl.gz", "n.txt")]
    assert resolve(study.seed.sources[0].path, "x")[0].path == str(folder / "d/[s].txt")


def test_overrides_reach_lists_and_new_branches(file: Path) -> None:
    study = load_study(
        file,
        ["corpus.sources.1.partition=tales", "search.space.include=[tales]", "train.clip=null"],
    )
    assert study.corpus.sources[1].partition == "tales"
    assert study.search.space.include == ("tales",)
    assert study.train.clip is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lerning_rate=1", ["train.lerning_rate", "did you mean 'learning_rate'"]),
        ("train.learning_rate=-1", ["train.learning_rate", "greater than 0", "-1"]),
        ("train.learning_rate=.nan", ["train.learning_rate", "finite"]),
        ("train.batch_tokens=100", ["multiple of train.sequence_length"]),
        ("train.rng_seed=true", ["train.rng_seed", "number"]),
        ("corpus.sources.0.partition=x", ["corpus.sources.0", "exactly one of partition"]),
        ("corpus.sources.7.partition=x", ["index below 2"]),
        ("corpus.sources=[]", ["corpus.sources", "at least one"]),
        ("search.space={min_size: 3, max_size: 2}", ["min_size <= max_size"]),
        ("search.space={include: [a], exclude: [a]}", ["include and exclude"]),
        ("search.objective={mean: all, domain: x}", ["exactly one of mean, weighted and domain"]),
        ("search.objective={weighted: {a: -1}}", ["weights >= 0"]),
        ("search.objective={mean: [a, a]}", ["mean must name each domain once", "['a', 'a']"]),
        ("search.merge.options={density: .nan}", ["options.density must be a finite number"]),
        ("search.merge.options={density: x}", ["options.density must be a finite number"]),
        ("validate.sizes=[]", ["sizes must be numbers of partitions", "[]"]),
        ("validate.sizes=[0]", ["sizes must be numbers of partitions", "[0]"]),
        ("validate.total_tokens=5000", ["must stand with validate.tokens: fixed", "proportional"]),
        ("validate={tokens: fixed, total_tokens: 1}", ["at least train.sequence_length", "got 1"]),
        ("seed={}", ["seed.sources must be given"]),
        ("tokenizer={}", ["tokenizer.path or tokenizer.train"]),
        ("evaluate.domains={novels: x.txt}", ["must not share a name", "novels"]),
        ("model={preset: tiny, path: x}", ["exactly one of model.path and model.preset"]),
        ("workspace=null", ["workspace"]),
        ("nonsense", ["key=value"]),
        ("name=[1, 2", ["must be YAML"]),
        ("train.betas=[0.9, 1.5]", ["betas"]),
        ("validate.mixtures=1e30", ["validate.mixtures must be a whole number below 9.2e18"]),
    ],
)
def test_a_wrong_key_gets_one_line_with_place_and_remedy(
    file: Path, override: str, words: list[str]
) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(file, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "override",
    [
        "LONG", "LONG=1", "name.LONG=1", "corpus.sources.LONG=1", "train.LONG=1", "name=[LONG",
        "train.learning_rate=LONG", "name={a: 1, LONG: 1, LONG: 2}", "model.preset=LONG",
        "model.overrides=LONG", "corpus.sources.0.LONG=1",
    ],
)  # fmt: skip
def test_a_long_name_is_cut_where_it_is_shown(file: Path, override: str) -> None:
    with pytest.raises(StudyError) as caught:
        load_study(file, [override.replace("LONG", "x" * 5000)])
    assert len(str(caught.value)) < 900


@pytest.mark.parametrize(
    "text", ["", "[]", "a: 1\na: 2", "a: &x [1]\nb: *x", "{", "\x00", "- x", "? [a]\n: b"]
)
def test_a_file_that_is_no_study_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_breaks_the_parser(tmp_path_factory: pytest.TempPathFactory, text: object) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else str(text).encode("utf-8", "replace"))
    with pytest.raises(UserError):
        load_study(path)


def test_a_cluster_file_may_not_change_results(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("deepspeed: {optimizer: {type: SGD}, zero_optimization: {stage: 1}}")
    with pytest.raises(StudyError, match=r"optimizer.*belong to the study"):
        load_cluster(path)


def test_no_cluster_file_means_the_defaults() -> None:
    assert load_cluster(None) == Cluster()
