"""Choosing a method: by hand on made-up figures, and on models whose best method is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer, choosing
from clearhead.checks import Choices, chosen, evaluation
from clearhead.checks.validating import validation
from clearhead.errors import UsageError
from clearhead.maps import RelevanceMap, Target
from clearhead.units import Unit
from clearhead.validations import Evaluation
from tasks.plainly import door

UNITS = tuple(Unit(index=i, text=f"u{i}") for i in range(8))
BERT = "text-classification/bert"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(choosing.FOLDER, str(tmp_path))
    return tmp_path


def mean_of(relevances: Any, seconds: dict[str, float], inputs: int = 12) -> Evaluation:
    """The choice among methods whose relevance is a function of what really counts."""
    found = []
    for n in range(inputs):
        truth = np.random.default_rng(n).normal(size=len(UNITS))
        maps = {
            name: RelevanceMap(
                method=name,
                model="toy",
                task="tensors",
                units=UNITS,
                relevance=make(truth, np.random.default_rng(100 + n)),
                target=Target(kind="class", label="fine"),
                value=float(truth.sum()),
            )
            for name, make in relevances.items()
        }
        scores = {"zero": lambda kept, w=truth: kept @ w, "mean": lambda kept, w=truth: 3 * kept @ w}
        judged = validation(maps, scores, choices=Choices(orders=2, steps=0, sets=0))
        found.append(judged)
    from dataclasses import replace

    return chosen(replace(evaluation(found), seconds=seconds), found)


def test_the_cheapest_of_the_best_is_chosen() -> None:
    made = {
        "true": lambda w, _: w,
        "cheap": lambda w, _: 2 * w,
        "noisy": lambda w, draw: w + draw.normal(size=len(w)),
        "false": lambda w, _: -w,
    }
    found = mean_of(made, {"true": 1.0, "cheap": 0.1, "noisy": 0.01, "false": 0.001})
    assert found.chosen == "cheap"
    assert [each.method for each in found.candidates][:2] == ["true", "cheap"]
    assert {each.method: each.level for each in found.candidates} == {
        "true": True,
        "cheap": True,
        "noisy": False,
        "false": False,
    }
    shares = {each.method: each.share for each in found.candidates}
    assert shares["true"] == pytest.approx(1)
    assert shares["false"] == pytest.approx(-1)
    assert Evaluation.from_dict(found.to_dict()).chosen == "cheap"
    assert "Chosen: cheap of 4 methods on 12 inputs: 100% of the largest dA in 100 ms" in found.paragraph()


def test_a_share_is_the_mean_over_ways_to_remove() -> None:
    found = mean_of({"true": lambda w, _: w, "noisy": lambda w, draw: w + draw.normal(size=len(w))}, {}, inputs=6)
    ways = []
    for way in found.faithfulness:
        values = {row.method: row.figures["dA"].value for row in way.rows}
        ways.append(values["noisy"] / values["true"])
    shares = {each.method: each.share for each in found.candidates}
    assert shares["noisy"] == pytest.approx(np.mean(ways))


def test_nothing_is_chosen_where_all_are_worse_than_chance() -> None:
    found = mean_of({"false": lambda w, _: -w}, {})
    assert found.chosen is None
    assert "none is chosen" in found.paragraph()


# ---- of a model ----------------------------------------------------------------------------------------------------


def linear(seed: int = 0) -> tuple[AttentionVisualizer, list[dict[str, torch.Tensor]]]:
    """Of a linear model without bias every method but saliency and noise is exact."""
    torch.manual_seed(seed)
    av = AttentionVisualizer(torch.nn.Linear(8, 2, bias=False))
    return av, [{"input": torch.randn(1, 8)} for _ in range(24)]


def test_a_choice_is_kept_and_taken(folder: Path) -> None:
    av, inputs = linear()
    found = av.choose(inputs, target=0, baseline="zero", seconds=30)
    assert found.inputs == 24
    assert all(each.share > 0.95 for each in found.candidates)
    assert found.chosen == min(found.seconds, key=lambda name: found.seconds[name])
    (file,) = (folder / "choices").glob("*.json")
    assert json.loads(file.read_text(encoding="utf-8"))["chosen"] == found.chosen

    other = AttentionVisualizer(av.model)  # the same weights, another process
    r = other.explain(inputs[0], target=0, baseline="zero", method="auto") if found.chosen == "secant" else None
    settings, note = other._choosing.settled([], choosing.Wanted(baseline="zero"), other._settings)
    assert settings.method == choosing.CANDIDATES[found.chosen]["method"]
    assert found.choice() in note
    assert r is None or note in r.notes


def test_other_weights_know_nothing_of_it() -> None:
    av, inputs = linear()
    av.choose(inputs, target=0, seconds=30)
    other, _ = linear(seed=1)
    assert other._choosing.known(choosing.Wanted()) is None
    r = other.explain(inputs[0], target=0, method="auto")
    assert r.method == other.settings.method
    assert any("nothing was measured yet" in note for note in r.notes)


def test_a_long_list_is_measured_and_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "ENOUGH", 3)
    texts = ["a gripping , beautiful film that is a bad one", "this was not a good film , and it is a bad one !"]
    short = door(BERT).explain(texts, method="auto")
    assert all("nothing was measured yet" in each.notes[-1] for each in short)
    found = door(BERT).explain([*texts, "the capital of france is paris and not berlin"], method="auto")
    assert all("of 8 methods on 3 inputs" in each.notes[-1] for each in found)
    assert len({each.method for each in found}) == 1


def test_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    av, inputs = linear()
    assert av.choose(inputs, target=0, seconds=1e-9).inputs == 1


def test_a_cache_that_cannot_be_written_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv(choosing.FOLDER, str(tmp_path / "file"))
    av, inputs = linear()
    assert av.choose(inputs, target=0, seconds=30).chosen


def test_a_broken_cache_is_none(folder: Path) -> None:
    av, inputs = linear()
    av.choose(inputs, target=0, seconds=30)
    (file,) = (folder / "choices").glob("*.json")
    file.write_text("{", encoding="utf-8")
    assert AttentionVisualizer(av.model)._choosing.known(choosing.Wanted()) is None


def test_what_means_nothing_is_refused() -> None:
    av, inputs = linear()
    with pytest.raises(UsageError, match="larger than 0"):
        av.choose(inputs, target=0, seconds=0)
    with pytest.raises(UsageError, match="here; found 'auto'"):
        av.validate(inputs[0], ["auto"], target=0)
    with pytest.raises(UsageError, match="chosen over 2"):
        av.choose(inputs[:1], target=0)
