"""Names of heads: planted ones of every kind, how sure a name is, and a model that was built to have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.errors import UsageError
from clearhead.heads import patterns
from clearhead.heads.listing import heads_of, looks_back
from heads.planted import document, layer, noisy, repeated, sentences_of, written

POSITIONAL = {
    "previous token": lambda q, n: [q - 1],
    "next token": lambda q, n: [q + 1],
    "same token": lambda q, n: [q],
    "first token": lambda q, n: [0],
    "delimiter": lambda q, n: [n - 1],
    "diagonal band": lambda q, n: range(q - 2, q + 3),
    "block": lambda q, n: [] if q in (0, n - 1) else range(1, n // 2) if q < n // 2 else range(n // 2, n - 1),
    "vertical": lambda q, n: [n // 4, n // 3],
    "broad": lambda q, n: [],
}
AHEAD = {"next token", "delimiter"}  # nobody who looks back sees these


def scattered(n: int, causal: bool) -> np.ndarray:
    """Rows in which random keys get nearly everything."""
    weights = np.random.default_rng(n).gamma(0.15, size=(n, n)) + 1e-6
    weights = np.tril(weights) if causal else weights
    return weights / weights.sum(1, keepdims=True)


def planted(length: int, noise: float, causal: bool):
    text, units = written(sentences_of(length))
    n = len(units)
    tables = {
        name: noisy(lambda q, aim=aim: aim(q, n), n, noise, causal)
        for name, aim in POSITIONAL.items()
        if not (causal and name in AHEAD)
    }
    tables["mixed"] = scattered(n, causal)
    return list(tables), document({"it": [layer(np.stack(list(tables.values())), units, units)]}, text)


def echoing(period: int, noise: float, causal: bool):
    text, units = written([f"w{n}" for n in repeated(50, period)])
    n = len(units)
    aims = {
        "duplicate token": lambda q: [q - period] if q > period else [0],
        "induction": lambda q: [q - period + 1] if q > period else [0],
        "previous token": lambda q: [q - 1],
    }
    table = np.stack([noisy(aim, n, noise, causal) for aim in aims.values()])
    return list(aims), document({"it": [layer(table, units, units)]}, text)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("lengths", [(22,), (60,), (22, 60)], ids=str)
def test_planted_heads_are_named(lengths, noise, causal):
    made = [planted(length, noise, causal) for length in lengths]
    found = patterns.of([maps for _, maps in made])
    assert [each.name for each in found] == made[0][0]
    assert all(0 <= each.confidence <= 1 for each in found)
    assert all(looks_back(maps["it"]) is causal for _, maps in made)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("period", [10, 30])
def test_heads_that_follow_repetitions_are_named(period, noise, causal):
    names, maps = echoing(period, noise, causal)
    assert [each.name for each in patterns.of([maps])] == names


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_a_name_is_less_sure_the_more_noise_there_is(causal):
    rising = np.linspace(0, 0.8, 9)
    for make, size in ((planted, 40), (echoing, 20)):
        found = [patterns.of([make(size, noise, causal)[1]]) for noise in rising]
        for head, name in enumerate(make(size, 0.0, causal)[0]):
            if name in ("broad", "mixed"):
                continue
            scores = np.array([each[head].figures[name] for each in found])
            assert (np.diff(scores) < 0).all(), name
            assert scores[0] > 0.8


@pytest.mark.parametrize("length", [30, 120])
def test_a_score_is_the_share_that_is_not_noise_whatever_the_length(length):
    names, maps = planted(length, 0.3, False)
    for name, each in zip(names, patterns.of([maps]), strict=True):
        if name in ("previous token", "next token", "same token", "first token", "delimiter", "vertical"):
            assert each.figures[name] == pytest.approx(0.7, abs=0.03), name


def test_the_figures_are_those_of_the_rows():
    _, maps = planted(22, 0.2, False)
    table = maps.layer(0).matrix()
    n = table.shape[1]
    apart = abs(np.subtract.outer(np.arange(n), np.arange(n)))
    for head, each in enumerate(patterns.of([maps])):
        assert each.entropy == pytest.approx(maps.layer(0).entropy()[head])
        assert each.distance == pytest.approx((table[head] * apart).sum() / n)
        assert each.sink == pytest.approx(table[head][:, [0, n - 1]].sum() / n)


def test_documents_weigh_the_same_and_their_order_does_not_matter():
    one, other = planted(22, 0.1, False)[1], planted(60, 0.3, False)[1]
    both, turned = patterns.of([one, other]), patterns.of([other, one])
    apart = patterns.of([one])[0].confidence, patterns.of([other])[0].confidence
    assert both[0].confidence == pytest.approx(sum(apart) / 2)
    assert [each.name for each in both] == [each.name for each in turned]


def test_across_two_texts_no_position_is_named():
    text, keys = written(sentences_of(22))
    _, queries = written(sentences_of(28), ends="</s>")
    q, k = len(queries), len(keys)
    tables = {name: np.full((q, k), 0.15 / k) for name in ("diagonal band", "vertical", "first token", "delimiter")}
    for row in range(q):
        tables["diagonal band"][row, round(row * (k - 1) / (q - 1))] += 0.85
    tables["vertical"][:, [5, 9]] += 0.425
    tables["first token"][:, 0] += 0.85
    tables["delimiter"][:, k - 1] += 0.85
    tables["broad"] = np.full((q, k), 1 / k)
    maps = document({"cross": [layer(np.stack(list(tables.values())), queries, keys)]}, text)
    found = patterns.of([maps])
    assert [each.name for each in found] == list(tables)
    assert not {"previous token", "same token", "block", "induction"} & set(found[0].figures)


def test_two_sinks_are_a_vertical_and_two_offsets_a_band():
    text, units = written(sentences_of(40))
    n = len(units)
    aims = (lambda q: [0, n - 1], lambda q: [q - 1, q + 1])
    maps = document({"it": [layer(np.stack([noisy(aim, n, 0.1, False) for aim in aims]), units, units)]}, text)
    assert [each.name for each in patterns.of([maps])] == ["vertical", "diagonal band"]


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_texts_that_are_too_short_to_tell_are_no_error(length):
    text, units = written(["so"] * length)
    table = np.full((2, len(units), len(units)), 1 / len(units))
    for each in patterns.of([document({"it": [layer(table, units, units)]}, text)]):
        assert each.name in patterns.NAMES
        assert 0 <= each.confidence <= 1


def test_heads_are_listed_by_stream_layer_and_number():
    _, units = written(["a", "b"])
    even = np.full((2, 4, 4), 0.25)
    maps = document({"encoder": [layer(even, units, units)] * 2, "cross": [layer(even[:1], units, units)]})
    listed = [str(head) for head in heads_of([maps])]
    assert listed == ["encoder 0.0", "encoder 0.1", "encoder 1.0", "encoder 1.1", "cross 0.0"]


def test_no_maps_and_maps_of_other_models_are_refused():
    _, units = written(["a", "b"])
    even = np.full((2, 4, 4), 0.25)
    one = document({"encoder": [layer(even, units, units)]})
    other = document({"encoder": [layer(even, units, units)] * 2})
    with pytest.raises(UsageError, match="found none"):
        patterns.of([])
    with pytest.raises(UsageError, match="document 1 has"):
        patterns.of([one, other])


def test_a_noun_that_all_queries_look_at_is_no_induction():
    words = "a man in a hat and a boy in a coat and a dog".split()
    text, units = written(words)
    n = len(units)
    aim = noisy(lambda q: [2], n, 0.1, True)  # the word behind the first "a"
    (found,) = patterns.of([document({"it": [layer(aim[None], units, units)]}, text)])
    assert found.name == "vertical"
    assert found.figures["induction"] < 0.1


def test_a_few_repetitions_give_a_figure_and_no_name():
    text, units = written([*sentences_of(40), *sentences_of(40)[:6]])
    n = len(units)
    aim = noisy(lambda q: [q - 40] if q > 40 else [], n, 0.0, False)
    (found,) = patterns.of([document({"it": [layer(aim[None], units, units)]}, text)])
    assert found.figures["duplicate token"] > 0.9
    assert found.name == "broad"


# ---- a model that was built to have them ---------------------------------------------------------------------------

LENGTH, VOCABULARY = 24, 12
SIZES = {"place": LENGTH, "token": VOCABULARY, "before": VOCABULARY, "rest": VOCABULARY}
AT = {name: sum(list(SIZES.values())[:n]) for n, name in enumerate(SIZES)}
WIDTH, SHARP = sum(SIZES.values()), 30.0


class Attention(nn.Module):
    """Three heads, each with keys, queries and values of the full width, looking back."""

    def __init__(self, queries, keys, values) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.stack(each)) for each in (queries, keys, values))

    def forward(self, x):
        q, k, v = (torch.einsum("btw,hwd->bhtd", x, each) for each in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2)
        later = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        return x + (weights @ v).sum(1)


class Built(nn.Module):
    """One-hot places and tokens; the first layer writes the token before, the second looks for it (Olsson 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        with torch.no_grad():
            self.embedding.weight.copy_(move("token", "token", VOCABULARY)[AT["token"] : AT["before"]])
            self.places.weight.copy_(move("place", "place", LENGTH)[:LENGTH])
        here, nothing = SHARP * move("place", "place", LENGTH), torch.zeros(WIDTH, WIDTH)
        back = torch.zeros(WIDTH, WIDTH)
        back[range(1, LENGTH), range(LENGTH - 1)] = SHARP
        start = torch.zeros(WIDTH, WIDTH)
        start[:LENGTH, 0] = SHARP
        same = move("place", "place", LENGTH)
        carry, out = move("token", "before", VOCABULARY), move("token", "rest", VOCABULARY)
        self.first = Attention([back, start, here], [same] * 3, [carry, nothing, nothing])
        asked, known = SHARP * move("token", "token", VOCABULARY), move("before", "token", VOCABULARY)
        self.second = Attention([asked, back, start], [known, same, same], [out, nothing, nothing])
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, input_ids):
        x = self.embedding(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        return self.head(self.second(self.first(x))[:, -1])


def move(source: str, target: str, size: int) -> torch.Tensor:
    whole = torch.zeros(WIDTH, WIDTH)
    whole[range(AT[source], AT[source] + size), range(AT[target], AT[target] + size)] = 1.0
    return whole


def spoken(maps, ids):
    """The same with the tokens as the texts of units, which are places where a model is given numbers."""
    (stream,) = maps
    units = tuple(replace(unit, text=f"token {n}") for unit, n in zip(stream.layer(0).keys, ids, strict=True))
    layers = tuple(replace(each, queries=units, keys=units) for each in stream)
    return replace(maps, maps={stream.name: replace(stream, layers=layers)}, units=units)


def test_heads_that_were_built_are_named():
    av = AttentionVisualizer(Built().eval())
    texts = [repeated(VOCABULARY, period, seed=period) for period in (8, 12)]
    maps = [spoken(av.attention({"input_ids": torch.tensor([ids])}, target=0), ids) for ids in texts]
    assert maps[0].streams == ("decoder",)
    assert looks_back(maps[0]["decoder"])
    found = patterns.of(maps)
    expected = ["previous token", "first token", "same token", "induction", "previous token", "first token"]
    assert [each.name for each in found] == expected
    assert all(each.confidence > 0.8 for each in found)
