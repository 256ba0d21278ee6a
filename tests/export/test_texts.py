"""Exports as text: what other programs read is the mixture, digit for digit."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.export import (
    Answer,
    Member,
    apportion,
    megatron_blend,
    mergekit_yaml,
    olmo_core_yaml,
    shares,
    weights_json,
    weights_yaml,
    write_export,
)
from ablate.merge.weights import unit_coefficients
from ablate.mixture import Mixture, member_mixture
from ablate.mixture_text import parse_mixture, read_weights

UNITS = {"law": 2, "math, pure": 1, "news": 4}


def answer(names: list[str], *, scale: float | None = None, budget: int | None = None) -> Answer:
    mixture = member_mixture(names, UNITS, "micro")
    seed, coefficients = unit_coefficients(mixture, UNITS, scale)
    return Answer(
        mixture=mixture,
        units=UNITS,
        available_tokens={"law": 2_000, "math, pure": 1_000, "news": 4_000},
        sources={name: (f"data/{name}.jsonl.gz",) for name in names},
        members=tuple(
            Member(partition=p, index=i, folder=Path(f"models/unit-{p}-{i}"), coefficient=c)
            for (p, i), c in coefficients
        ),
        seed_folder=Path("models/seed"),
        tokenizer_folder=Path("corpus/@tokenizer"),
        seed_coefficient=seed,
        target_tokens=budget,
    )


mixtures = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.floats(1e-12, 1e6), min_size=1, max_size=9
).map(Mixture.of)


@settings(max_examples=100, deadline=None)
@given(mixtures)
def test_shares_sum_to_exactly_one_and_stay_close(mixture: Mixture) -> None:
    rounded = shares(mixture)
    assert sum(rounded.values()) == Decimal(1)
    assert min(rounded.values()) > 0
    weights = dict(mixture.weights)
    assert all(abs(float(s) - weights[n]) < 1e-8 for n, s in rounded.items())


@settings(max_examples=100, deadline=None)
@given(mixtures, st.integers(9, 10**13))
def test_a_budget_is_spent_to_the_token(mixture: Mixture, budget: int) -> None:
    tokens = apportion(mixture, budget)
    assert sum(tokens.values()) == budget
    assert set(tokens) == set(mixture.partitions)
    assert min(tokens.values()) >= 1


def test_weights_come_with_tokens_and_epochs() -> None:
    tree = json.loads(weights_json(answer(["law", "news"], budget=12_000)))
    assert tree["weights"] == {"law": 1 / 3, "news": 2 / 3}
    assert tree["tokens"] == {"law": 4_000, "news": 8_000}
    assert tree["epochs"] == {"law": 2.0, "news": 2.0}
    assert yaml.safe_load(weights_yaml(answer(["law", "news"], budget=12_000))) == tree


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_exported_weights_are_read_back_as_the_same_mixture(tmp_path: Path, suffix: str) -> None:
    asked = answer(["law", "math, pure", "news"], budget=10_000)
    path = write_export(asked, "weights", tmp_path / f"w{suffix}")
    again = parse_mixture(str(path), known=UNITS, units=UNITS, weighting="macro")
    assert again == asked.mixture == read_weights(path)
    path.write_text('{"law": 1, "lwa": 0}')
    assert read_weights(path).partitions == ("law",)
    with pytest.raises(StudyError, match="got 'lwa'; did you mean 'law'"):
        parse_mixture(
            str(path), known=["law", "news"], units={"law": 1, "news": 1}, weighting="micro"
        )


def test_mergekit_weights_are_the_coefficients() -> None:
    tree = yaml.safe_load(mergekit_yaml(answer(["law", "math, pure"])))
    assert tree["merge_method"] == "linear"
    assert [m["parameters"]["weight"] for m in tree["models"]] == [1 / 3] * 3
    assert tree["models"][0]["model"] == "models/unit-law-0"
    assert tree["parameters"] == {"normalize": False} and "base_model" not in tree


def test_mergekit_adds_scaled_deltas_to_the_seed() -> None:
    tree = yaml.safe_load(mergekit_yaml(answer(["law", "math, pure"], scale=0.5)))
    assert tree["merge_method"] == "task_arithmetic"
    assert tree["base_model"] == "models/seed"
    assert [m["parameters"]["weight"] for m in tree["models"]] == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(
    ("method", "options", "wanted"),
    [
        ("ties", {}, {"normalize": True, "density": 0.2, "lambda": 1.0}),
        (
            "ties",
            {"density": 0.5, "scale": 2.0},
            {"normalize": True, "density": 0.5, "lambda": 2.0},
        ),
        ("task_arithmetic", {"scale": 3.0}, {"normalize": False, "lambda": 3.0}),
    ],
)
def test_mergekit_merges_on_the_seed_as_ablate_does(
    method: str, options: dict[str, float], wanted: dict[str, float]
) -> None:
    asked = replace(answer(["law", "math, pure"]), method=method, options=tuple(options.items()))
    tree = yaml.safe_load(mergekit_yaml(asked))
    assert (tree["merge_method"], tree["base_model"]) == (method, "models/seed")
    assert [m["parameters"]["weight"] for m in tree["models"]] == [1 / 3] * 3
    assert tree["parameters"] == wanted
    with pytest.raises(ValueError, match="got dare"):
        mergekit_yaml(replace(asked, method="dare"))


def test_mergekit_paths_with_plus_and_at_are_not_loras() -> None:
    asked = answer(["law"])
    members = tuple(replace(m, folder=Path("a+b@c")) for m in asked.members)
    tree = yaml.safe_load(mergekit_yaml(replace(asked, members=members)))
    assert tree["models"][0]["model"] == {"model": {"path": "a+b@c"}}


def test_olmo_core_sources_are_a_valid_mixture() -> None:
    text = olmo_core_yaml(answer(["law", "math, pure", "news"], budget=14_000))
    sources = yaml.safe_load(text)["sources"]
    assert sum(Decimal(str(s["target_ratio"])) for s in sources) == 1
    for source in sources:
        assert 0 < source["target_ratio"] <= 1 and source["paths"]
        available = {"law": 2_000, "math, pure": 1_000, "news": 4_000}[source["source_name"]]
        needed = int(14_000 * source["target_ratio"])
        assert int(available * source["max_repetition_ratio"]) >= needed
        assert source["max_repetition_ratio"] >= 1
    assert "# requested_tokens: 14000" in text


def test_megatron_blend_reads_as_pairs_of_weight_and_prefix() -> None:
    words = megatron_blend(answer(["law", "math, pure", "news"])).split()
    assert sum(Decimal(w) for w in words[::2]) == 1
    assert len(words) == 6 and words[1] == "law_text_document"


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    path = write_export(answer(["law"]), "mergekit", tmp_path)
    assert path == tmp_path / "mergekit.yaml"
    assert write_export(answer(["law"]), "mergekit", tmp_path) == path
    with pytest.raises(StudyError, match="must not replace"):
        write_export(answer(["news"]), "mergekit", tmp_path)
    assert "unit-law" in path.read_text()


def test_unknown_formats_and_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="did you mean 'weights'"):
        write_export(answer(["law"]), "weight", tmp_path)
    with pytest.raises(StudyError, match=r"\.txt for megatron"):
        write_export(answer(["law"]), "megatron", tmp_path / "blend.json")
    assert list(tmp_path.iterdir()) == []


def test_a_budget_needs_known_tokens() -> None:
    asked = replace(answer(["law"], budget=100), available_tokens={})
    with pytest.raises(StudyError, match="'law'"):
        weights_json(asked)
