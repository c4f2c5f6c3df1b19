"""By way of mixtures: which units are replaced first, what a way is made of, and that its books close as well."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from clearhead import AttentionVisualizer, Settings
from clearhead.relevance.secant import difference, halves
from clearhead.relevance.secant.method import secant
from clearhead.subjects import Loaded, Subject, Wanted
from tasks.gallery import gallery, names
from tasks.plainly import door, options, rows_of


class Curved(nn.Module):
    """A network of vectors [batch, units, width] whose units act on each other, with two answers."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.last = nn.Linear(width, 5), nn.Linear(5, 2)

    def forward(self, vectors: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(vectors))
        mixed = torch.softmax(hidden @ hidden.transpose(1, 2), -1) @ hidden
        return self.last((hidden * mixed).sum(1))


def asked(units: int, seed: int = 0) -> tuple[Subject, Tensor, Tensor]:
    """A subject in double precision, an input and a baseline."""
    model = Curved().double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    x, b = torch.randn(2, 1, units, 3, generator=generator, dtype=torch.float64) * 1.5
    return Subject(Loaded(model=model, processor=None, name="toy", task="tensors", pooling="mean")), x, b


def explained(subject: Subject, x: Tensor, b: Any, halvings: int) -> Any:
    question = subject.question({"vectors": x}, Wanted(baseline=b, target=0), Settings(method="secant"))
    ((_, found),) = secant(question, Settings(method="secant", halvings=halvings))
    return found


def mixture(x: Tensor, b: Tensor, gone: Any) -> Tensor:
    return torch.where(torch.tensor(gone)[None, :, None], b, x)


def value(subject: Subject, x: Tensor) -> float:
    return float(answer(subject, x))


def answer(subject: Subject, x: Tensor) -> Tensor:
    """Of two classes the difference."""
    scores = subject.model(x)[0]
    return scores[0] - scores[1]


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-12 * max(1.0, np.abs(expected).max()))


# ---- which units first ---------------------------------------------------------------------------------------------


def test_the_first_halving_parts_the_more_relevant_half_from_the_others():
    found = halves.halves(np.array([0.1, -3.0, 5.0, 2.0, 0.2]), 1)
    assert found.tolist() == [[False, False, True, True, True], [True, True, False, False, False]]


def test_the_second_parts_each_half_once_more():
    relevance = np.arange(8.0)[::-1]
    assert halves.halves(relevance, 2)[2].tolist() == [True, True, False, False, True, True, False, False]


@given(st.integers(0, 70), st.integers(0, 9))
def test_halves_come_with_all_others_and_part_any_two_if_there_are_enough(units, halvings):
    found = halves.halves(np.random.default_rng(units).normal(size=units), halvings)
    assert found.shape[1:] == (units,)
    assert len(found) <= 2 * halvings
    assert np.array_equal(found[1::2], ~found[::2])
    assert all(abs(2 * int(row.sum()) - units) <= max(1, units // 2) for row in found)
    if len(found) < 2 * halvings or 2**halvings >= units:
        codes = {tuple(column) for column in found.T.tolist()}
        assert len(codes) == (units if len(found) else min(units, 1))


# ---- what a way is made of -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_between_two_units_relevance_is_the_shapley_value(seed):
    """Each way replaces one unit and then the other, so what a part is made of is one unit's: plain calls say it."""
    subject, x, b = asked(2, seed)
    full, none = value(subject, x), value(subject, b)
    only = [value(subject, mixture(x, b, gone)) for gone in ([False, True], [True, False])]
    expected = [(only[0] - none + full - only[1]) / 2, (only[1] - none + full - only[0]) / 2]
    close(explained(subject, x, b, 1).relevance, expected)
    assert np.abs(explained(subject, x, b, 0).relevance - expected).max() > 1e-3


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_a_way_is_made_of_straight_differences(halvings):
    """The same from differences of mixtures, one at a time, ranks sorted by hand."""
    subject, x, b = asked(5)
    straight = difference(lambda t: answer(subject, t), [x], [b], Settings()).sources[0].relevance.sum((0, 2))
    places = sorted(range(5), key=lambda i: -float(straight[i]))
    ways = []
    for digit in range(1, halvings + 1):
        first = {unit for rank, unit in enumerate(places) if (rank * 2**digit // 5) % 2 == 0}
        ways += [[unit in first for unit in range(5)], [unit not in first for unit in range(5)]]
    total = torch.zeros(5, dtype=torch.float64)
    for gone in ways:
        mixed = mixture(x, b, gone)
        for start, end in ((x, mixed), (mixed, b)):
            total += (
                difference(lambda t: answer(subject, t), [start], [end], Settings()).sources[0].relevance.sum((0, 2))
            )
    found = explained(subject, x, b, halvings)
    close(found.relevance, (total / len(ways)).numpy())
    assert found.notes[-1].startswith(f"By way of {2 * halvings} mixtures")


def test_where_units_do_not_act_on_each_other_every_way_says_the_same():
    model = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(1)).double().requires_grad_(False)
    summed = nn.Sequential(model, nn.Linear(6, 2).double().requires_grad_(False)).eval()
    subject = Subject(Loaded(model=summed, processor=None, name="toy", task="tensors", pooling="mean"))
    x = torch.linspace(-2, 3, 6, dtype=torch.float64).reshape(1, 6, 1)
    question = subject.question({"input": x}, Wanted(baseline="zero", target=0), Settings(method="secant"))
    found = [next(secant(question, Settings(method="secant", halvings=halvings)))[1] for halvings in (0, 1, 4)]
    for other in found[1:]:
        close(other.relevance, found[0].relevance)
        assert (other.value, other.base_value) == (found[0].value, found[0].base_value)


def test_a_unit_that_is_the_same_in_the_baseline_is_in_no_half():
    """Two of four units differ, so theirs are Shapley values, wherever the others rank."""
    subject, x, b = asked(4)
    b[:, 1:3] = x[:, 1:3]
    found = explained(subject, x, b, 1).relevance
    full, none = value(subject, x), value(subject, b)
    first, last = (value(subject, mixture(x, b, gone)) for gone in ([False] * 3 + [True], [True] + [False] * 3))
    close(found, [(first - none + full - last) / 2, 0, 0, (last - none + full - first) / 2])


def test_one_unit_has_nothing_to_be_parted_from():
    subject, x, b = asked(3)
    b[:, :2] = x[:, :2]
    found = explained(subject, x, b, 3)
    close(found.relevance, [0, 0, value(subject, x) - value(subject, b)])
    assert found.notes == explained(subject, x, b, 0).notes


def test_rows_that_do_not_fit_into_memory_together_say_the_same(monkeypatch):
    subject, x, b = asked(5)
    together = explained(subject, x, b, 2)
    monkeypatch.setattr(halves, "fitting", lambda *_: 3)
    close(explained(subject, x, b, 2).relevance, together.relevance)


def test_several_baselines_are_averaged():
    subject, x, b = asked(4)
    each = [explained(subject, x, one, 1).relevance for one in (b, torch.zeros_like(x))]
    close(explained(subject, x, [b, "zero"], 1).relevance, np.mean(each, 0))


# ---- real tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_a_difference_adds_up_by_any_way_and_speaks_of_the_same(name):
    one = gallery(name)
    found, straight = (
        rows_of(door(name).explain(one.inputs[0], method="secant", halvings=halvings, **options(one.task)))
        for halvings in (1, 0)
    )
    for row, other in zip(found, straight, strict=True):
        assert (row.units, row.target, row.value, row.base_value) == (
            other.units, other.target, other.value, other.base_value
        )  # fmt: skip
        gap = abs(row.base_value + row.relevance.sum() + row.sinks - row.value)
        assert gap <= max(1e-4 * abs(row.value), 1e-6 * np.abs(row.relevance).sum())
        assert not any(r for r, unit in zip(row.relevance, row.units, strict=True) if unit.special)


@pytest.mark.parametrize("name", ["text-classification/bert", "image-classification/vit"])
def test_a_list_equals_its_members_alone(name):
    inputs = list(gallery(name).inputs[:3])
    together = door(name).explain(inputs, method="secant", halvings=2, baseline=["zero", "mean"])
    for found, given_ in zip(together, inputs, strict=True):
        alone = door(name).explain(given_, method="secant", halvings=2, baseline=["zero", "mean"])
        np.testing.assert_allclose(found.relevance, alone.relevance, atol=1e-5 * max(1.0, abs(alone.value)))


def test_a_target_function_is_asked_of_one_row_at_a_time():
    av, text = door("text-classification/bert"), gallery("text-classification/bert").inputs[0]
    target = lambda output: output.logits[0, 1] - output.logits[0, 0]  # noqa: E731
    by_function = av.explain(text, target=target, method="secant", halvings=1)
    by_name = av.explain(text, target=1, method="secant", halvings=1)
    np.testing.assert_allclose(by_function.relevance, by_name.relevance, atol=1e-5)


def test_the_choice_of_the_input_is_explained_whatever_mixtures_would_choose():
    """The parts telescope to f(x) - f(b) of one class only if mixtures are asked about the same."""
    subject, x, b = asked(4, seed=1)
    av = AttentionVisualizer(subject.model)
    changed = 0
    for seed in range(12):
        x = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        b = -x
        label = int(subject.model(x)[0].argmax())
        mixtures = [mixture(x, b, gone) for gone in itertools.product([False, True], repeat=4)]
        changed += any(int(subject.model(each)[0].argmax()) != label for each in mixtures)
        found = av.explain({"vectors": x}, baseline=b, method="secant", halvings=2)
        assert found.conservation_error < 1e-9
    assert changed > 3
