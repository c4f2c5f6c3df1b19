"""Clusters of heads: distances against scipy's, planted groups, and that nothing but the heads decides."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon, pdist, squareform
from sklearn.metrics import adjusted_rand_score

from clearhead import AttentionVisualizer
from clearhead.errors import UsageError
from clearhead.heads import clusters
from heads.planted import document, layer, noisy, written


def random_layer(units, keys, heads: int, seed: int, causal: bool = False):
    made = np.random.default_rng(seed)
    table = made.gamma(0.3, size=(heads, len(units), len(keys))) + 1e-9
    table = np.tril(table) if causal else table
    return layer(table / table.sum(-1, keepdims=True), units, keys)


def random_document(length: int, seed: int, *, causal: bool = False, heads: int = 3, layers: int = 2):
    text, units = written([f"w{seed}x{n}" for n in range(length)])
    made = [random_layer(units, units, heads, 100 * seed + n, causal) for n in range(layers)]
    return document({"it": made}, text)


def plainly(maps, causal: bool) -> np.ndarray:
    """The mean over documents of the mean over rows of scipy's distance, squared."""
    total = 0
    for each in maps:
        table = np.concatenate([one.matrix() for one in each["it"]])
        heads, rows, keys = table.shape
        found = np.zeros((heads, heads, rows))
        for row in range(rows):
            seen = row + 1 if causal else keys
            share = 0.999 * table[:, row, :seen] + 0.001 / seen
            for a in range(heads):
                for b in range(a):
                    found[a, b, row] = found[b, a, row] = jensenshannon(share[a], share[b], base=2) ** 2
        total = total + found.mean(-1)
    return total / len(maps)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_distances_are_scipys_over_full_rows(causal):
    maps = [random_document(length, n, causal=causal) for n, length in enumerate((5, 19, 11))]
    (found,) = clusters.of(maps)
    np.testing.assert_allclose(found.distances, plainly(maps, causal), atol=2e-6)
    assert found.reduced == ""


def test_a_long_document_weighs_no_more_than_a_short_one():
    short, long = random_document(6, 1), random_document(60, 2)
    (both,) = clusters.of([short, long])
    apart = plainly([short], False), plainly([long], False)
    np.testing.assert_allclose(both.distances, (apart[0] + apart[1]) / 2, atol=2e-6)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_what_a_sketch_gets_wrong_is_small_and_is_said(causal):
    maps = [random_document(60, n, causal=causal, heads=6, layers=4) for n in range(4)]
    ((full,), (sketch,)) = clusters.of(maps), clusters.of(maps, exact=0)
    off = abs(sketch.distances - full.distances)
    assert 0 < off.max() < 0.06
    assert off.mean() / full.distances.mean() < 0.03
    assert sketch.error <= off.max() + 1e-6
    assert sketch.error > off.max() / 4
    assert f"{sketch.error:.4f} at most" in sketch.reduced
    assert sketch.reduced.startswith("reduced to")


# ---- planted groups ------------------------------------------------------------------------------------------------

KINDS = (lambda q, n: [q - 1], lambda q, n: [0], lambda q, n: [n - 1], lambda q, n: [q], lambda q, n: [])
TRUTH = np.array([0, 1, 2, 3, 4, 2, 0, 0, 1, 3, 4, 4, 1, 2, 3, 0])


def grouped(length: int, seed: int):
    """Sixteen heads in four layers of five kinds, each with noise of its own."""
    text, units = written([f"v{seed}y{n}" for n in range(length)])
    n, made = len(units), np.random.default_rng(seed)
    tables = []
    for kind in TRUTH:
        own = made.gamma(1.0, size=(n, n))
        aim = noisy(lambda q, kind=kind: KINDS[kind](q, n), n, 0.1, False)
        tables.append(0.85 * aim + 0.15 * own / own.sum(1, keepdims=True))
    table = np.stack(tables).reshape(4, 4, n, n)
    return document({"it": [layer(each, units, units, step=4 + seed) for each in table]}, text)


@pytest.fixture(scope="module")
def planted():
    return [grouped(length, n) for n, length in enumerate((12, 30, 21))]


@pytest.mark.parametrize("exact", [clusters.EXACT, 0], ids=["full", "sketch"])
def test_planted_groups_are_found(planted, exact):
    (found,) = clusters.of(planted, exact=exact)
    assert adjusted_rand_score(TRUTH, found.labels) == 1.0
    assert found.silhouette > 0.5
    assert [TRUTH[head] for head in found.medoids] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("exact", [clusters.EXACT, 0], ids=["full", "sketch"])
def test_nothing_but_the_heads_decides(planted, exact, monkeypatch):
    (first,) = clusters.of(planted, exact=exact)
    (again,) = clusters.of(planted, exact=exact)
    (turned,) = clusters.of([planted[n] for n in (2, 0, 1)], exact=exact)
    for other in (again, turned):
        np.testing.assert_array_equal(other.distances, first.distances)
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_array_equal(other.places, first.places)
        assert other.medoids == first.medoids
    monkeypatch.setattr(clusters, "_NUMBERS", 16 * 32 * 3)  # three rows at a time
    (narrow,) = clusters.of(planted, exact=exact)
    np.testing.assert_array_equal(narrow.labels, first.labels)
    (reseeded,) = clusters.of(planted, exact=exact, seed=7)
    np.testing.assert_array_equal(reseeded.labels, first.labels)


def test_maps_made_one_by_one_and_together_are_grouped_alike(tiny_classifier):
    av = AttentionVisualizer.from_pretrained(tiny_classifier)
    texts = ["a good film", "this film is not good .", "bad"]
    together = clusters.of(av.attention(texts))
    single = clusters.of([av.attention(text) for text in reversed(texts)])
    for one, other in zip(together, single, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.distances, other.distances, atol=1e-6)


def test_a_number_of_groups_can_be_given(planted):
    for number in (1, 3, 16):
        (found,) = clusters.of(planted, number=number)
        assert len(set(found.labels.tolist())) == number == len(found.medoids)
        assert -1 <= found.silhouette <= 1


def test_places_are_as_far_apart_as_two_dimensions_allow(planted):
    text, units = written(["a", "b", "c", "d"])
    n = len(units)
    three = np.stack([noisy(lambda q, k=k: [k], n, 0.1, False) for k in (0, 2, 4)])
    maps = [document({"it": [layer(three, units, units)]}, text)] * 2
    (found,) = clusters.of(maps)  # three heads lie in a plane: nothing is lost
    np.testing.assert_allclose(squareform(pdist(found.places)) ** 2, found.distances, atol=1e-6)
    (more,) = clusters.of(planted)
    assert more.places.shape == (16, 2)
    np.testing.assert_allclose(more.places.mean(0), 0, atol=1e-9)


# ---- streams and what cannot be ------------------------------------------------------------------------------------


def test_streams_and_lengths_are_kept_apart():
    maps = []
    for seed in range(2):
        _, long = written([f"a{seed}{n}" for n in range(9)])
        _, short = written([f"b{seed}{n}" for n in range(4)])
        tower = [random_layer(long, long, 2, seed), random_layer(short, short, 3, seed + 5)]
        maps.append(document({"tower": tower, "cross": [random_layer(short, long, 2, seed + 9)]}))
    found = clusters.of(maps)
    assert [(each.stream, each.members) for each in found] == [
        ("tower", (0, 1)),
        ("tower", (2, 3, 4)),
        ("cross", (5, 6)),
    ]
    assert all(set(each.medoids) <= set(each.members) for each in found)


def test_heads_that_are_all_alike_are_one_group():
    text, units = written(["a", "b", "c"])
    even = np.full((5, 5, 5), 0.2)
    (found,) = clusters.of([document({"it": [layer(even, units, units)]}, text)] * 2)
    assert found.labels.tolist() == [0] * 5
    assert found.silhouette == 0
    assert np.isfinite(found.places).all()


def test_a_row_without_mass_is_even():
    text, units = written(["a", "b", "c"])
    table = np.full((2, 5, 5), 0.2)
    table[1, 2] = 0
    (found,) = clusters.of([document({"it": [layer(table, units, units)]}, text)] * 2)
    assert found.distances.max() < 1e-6


def test_too_few_documents_are_refused(planted):
    for few in ([], planted[:1]):
        with pytest.raises(UsageError, match=f"at least two documents.*found {len(few)}.*Pass more"):
            clusters.of(few)


@pytest.mark.parametrize("number", [0, 17, 2.0, True])
def test_a_number_that_cannot_be_is_refused(planted, number):
    with pytest.raises(UsageError, match=r"from 1 to the 16 heads.*found"):
        clusters.of(planted, number=number)
