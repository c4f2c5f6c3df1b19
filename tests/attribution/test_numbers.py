"""The numbers of every method: against captum and shap called directly, definitions, and what is exact by theory."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import nn

from attribution.byhand import BERT, by_orders, plain, shapley, valued
from clearhead import AttentionVisualizer, FeatureAttributor
from clearhead.attribution import MEANINGS
from clearhead.attribution.partition import linkage, tree
from clearhead.units import Unit
from tasks.gallery import gallery
from tasks.plainly import door

TEXT = "a gripping , beautiful film !"
EIGHT = "this was not a good film , and"
SUMS = [name for name in MEANINGS if name not in ("saliency", "input-x-gradient", "lime", "occlusion")]


def explained(method: str, text: str = TEXT, **asked: Any) -> Any:
    return FeatureAttributor(door(BERT)).attribute(text, method, **asked)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    expected = np.asarray(expected, dtype=np.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).sum())


def summed(relevance: torch.Tensor) -> np.ndarray:
    return relevance.detach().double().sum(-1)[0].numpy()


# ---- linear functions: every method says the same ------------------------------------------------------------------


class Weighted(nn.Module):
    """A linear function of the vectors of ids, with a bias."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.words, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.words(input_ids).sum(1))


@pytest.mark.parametrize("method", MEANINGS)
def test_of_a_linear_function_every_method_gives_weight_times_difference(method: str) -> None:
    layer = nn.Linear(5, 3)
    x, b = torch.tensor([[1.0, -2.0, 3.0, 0.5, 4.0]]), torch.tensor([[0.5, 1.0, 3.0, -1.0, 0.0]])
    compares = method not in ("saliency", "input-x-gradient")
    attributor = FeatureAttributor(AttentionVisualizer(layer))
    r = attributor.attribute({"input": x}, method, target=1, baseline={"input": b} if compares else None)
    weight = layer.weight[1].detach()
    expected = {"saliency": weight.abs(), "input-x-gradient": weight * x[0]}.get(method, weight * (x - b)[0])
    close(r.relevance, expected)
    assert r.relevance[2] == 0 or not compares, "the same in the baseline"
    assert r.value == pytest.approx(float(layer(x)[0, 1].detach()), abs=1e-6)
    if method in SUMS:
        assert r.additive
        assert r.base_value == pytest.approx(float(layer(b)[0, 1].detach()), abs=1e-6)


@pytest.mark.parametrize("method", [name for name in MEANINGS if name not in ("saliency", "input-x-gradient")])
def test_of_a_sum_of_vectors_every_method_gives_the_share_of_each_token(method: str) -> None:
    model, ids = Weighted(), torch.tensor([[3, 7, 1, 7]])
    r = FeatureAttributor(AttentionVisualizer(model)).attribute(
        {"input_ids": ids}, method, target=2, baseline={"input_ids": torch.tensor([[5, 5, 5, 5]])}
    )
    shares = (model.words.weight[ids[0]] - model.words.weight[5]) @ model.out.weight[2]
    close(r.relevance, shares.detach())


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize(("baseline", "token"), [("mask", 4), ("pad", 0), ("zero", None)])
def test_integrated_gradients_are_captums(baseline: str, token: int | None, steps: int) -> None:
    p = plain(TEXT)
    direct = captum.attr.IntegratedGradients(p.of_vectors).attribute(p.vectors, p.baseline(token), n_steps=steps)
    r = explained("integrated-gradients", baseline=baseline, steps=steps)
    close(r.relevance, summed(direct))
    assert r.value == pytest.approx(float(p.of_vectors(p.vectors).detach()), abs=1e-5)
    assert r.base_value == pytest.approx(float(p.of_vectors(p.baseline(token)).detach()), abs=1e-5)


def test_gradient_shap_is_captums() -> None:
    p = plain(TEXT)
    r = explained("gradient-shap", baseline=["mask", "zero"], samples=20, seed=5)
    several = torch.cat([p.baseline(4), p.baseline()])
    state = torch.get_rng_state(), np.random.get_state()
    torch.manual_seed(5)
    np.random.seed(5)
    method = captum.attr.GradientShap(p.of_vectors)
    parts = [summed(method.attribute(p.vectors, several, n_samples=2, stdevs=0.0)) for _ in range(10)]
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    close(r.relevance, np.mean(parts, 0))
    assert r.base_value == pytest.approx(float(p.of_vectors(several).mean().detach()), abs=1e-5)
    error = np.std(parts, 0, ddof=1) / np.sqrt(10)
    assert errors_of(r) == (pytest.approx(np.sqrt((error**2).mean()), rel=0.05), pytest.approx(error.max(), rel=0.05))


def test_saliency_and_its_product_with_the_input_are_captums() -> None:
    p = plain(TEXT)
    x = p.vectors.requires_grad_()
    close(explained("saliency").relevance, summed(captum.attr.Saliency(p.of_vectors).attribute(x)))
    close(explained("input-x-gradient").relevance, summed(captum.attr.InputXGradient(p.of_vectors).attribute(x)))


class Bent(nn.Module):
    """A net that bends in modules only."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_deeplift_is_captums_where_it_applies() -> None:
    model, x, b = Bent(), torch.linspace(-2, 3, 6)[None], torch.linspace(1, -1, 6)[None]
    r = FeatureAttributor(AttentionVisualizer(model)).attribute({"x": x}, "deeplift", target=1, baseline={"x": b})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = captum.attr.DeepLift(Bent()).attribute(x.clone().requires_grad_(), b, target=1)
    close(r.relevance, direct[0].detach())
    assert r.conservation_error < 1e-4
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or "input" in vars(m)]
    assert hooked == []


# ---- removing ------------------------------------------------------------------------------------------------------


def test_occlusion_is_what_is_lost_with_each_unit() -> None:
    p = plain(TEXT)
    ones = torch.ones(1, len(p.own))
    lost = [float(p.of_kept(ones) - p.of_kept(ones - row)) for row in torch.eye(len(p.own))]
    direct = captum.attr.FeatureAblation(p.of_kept).attribute(ones)
    r = explained("occlusion", baseline="mask")
    close(r.relevance[p.own], lost)
    close(r.relevance[p.own], direct[0])
    assert not r.relevance[[0, -1]].any()
    assert not r.additive


def test_kernel_shap_of_eight_units_is_the_definition() -> None:
    p = plain(EIGHT)
    assert len(p.own) == 8
    value = valued(p.of_kept, 8)
    r = explained("kernel-shap", EIGHT, baseline="mask")
    close(r.relevance[p.own], shapley(value, 8), 1e-5)
    assert r.conservation_error < 1e-5
    assert "All 256 subsets, so that these are the Shapley values. 256 inputs were read." in r.notes


def test_the_definition_is_that_of_all_orders() -> None:
    """The oracle itself, on six units: all 720 orders give the same."""
    p = plain(TEXT)
    value = valued(p.of_kept, 6)
    orders = list(itertools.permutations(range(6)))
    close(shapley(value, 6), by_orders(value, orders, 6), 1e-9)


def test_shapley_sampling_is_captums_and_its_error_is_true() -> None:
    p = plain(EIGHT)
    exact, ones = shapley(valued(p.of_kept, 8), 8), torch.ones(1, 8)
    r = explained("shapley-sampling", EIGHT, baseline="mask", samples=40, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        direct = captum.attr.ShapleyValueSampling(p.of_kept).attribute(ones, n_samples=40)
    close(r.relevance[p.own], direct[0])
    assert r.conservation_error < 1e-4
    size = errors_of(r)[1]
    off = np.abs(r.relevance[p.own] - exact)
    assert 0 < off.max() < 4 * size


def test_kernel_shap_of_drawn_subsets_is_captums_and_its_error_is_true() -> None:
    p = plain(EIGHT)
    exact, ones = shapley(valued(p.of_kept, 8), 8), torch.ones(1, 8)
    r = explained("kernel-shap", EIGHT, baseline="mask", samples=90, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        direct = captum.attr.KernelShap(p.of_kept).attribute(ones, n_samples=90)
    close(r.relevance[p.own], direct[0], 1e-4)
    off = np.abs(r.relevance[p.own] - exact)
    assert 0 < off.max() < 4 * errors_of(r)[1]


def test_lime_is_captums() -> None:
    p, ones = plain(EIGHT), torch.ones(1, 8)
    r = explained("lime", EIGHT, baseline="mask", samples=60, seed=2)
    near = get_exp_kernel_similarity_function("cosine", 0.25)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        method = captum.attr.Lime(p.of_kept, interpretable_model=SkLearnLinearRegression(), similarity_func=near)
        direct = method.attribute(ones, n_samples=60)
    close(r.relevance[p.own], direct[0], 1e-4)
    assert errors_of(r)[1] > 0


@pytest.mark.parametrize("method", ["shapley-sampling", "kernel-shap", "lime", "gradient-shap"])
def test_errors_shrink_with_the_samples_and_seeds_decide(method: str) -> None:
    few, many = (explained(method, EIGHT, baseline="mask", samples=n) for n in (30, 230))
    assert errors_of(many)[0] < 0.7 * errors_of(few)[0]
    again, other = (explained(method, EIGHT, baseline="mask", samples=30, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.relevance, few.relevance)
    assert np.abs(other.relevance - few.relevance).max() > 1e-4
    assert (again.recipe.seed, other.recipe.seed) == (0, 1)


def errors_of(r: Any) -> tuple[float, float]:
    """The root mean square and the largest standard error that a map's notes state."""
    (note,) = [note for note in r.notes if note.startswith("Standard error")]
    words = note.replace(".", "", 0).split()
    return float(words[words.index("number:") + 1]), float(words[-1].rstrip("."))


# ---- partition SHAP ------------------------------------------------------------------------------------------------


def owen(value: Any, part: Any, inside: tuple[int, ...], found: np.ndarray, share: float = 1.0) -> None:
    """From the definition: two siblings share what their group wins as two players do, in each context of the group."""
    if isinstance(part, int):
        found[part] += share * (value(tuple(sorted((*inside, part)))) - value(tuple(sorted(inside))))
        return
    one, other = part
    for first, second in ((one, other), (other, one)):
        owen(value, first, inside, found, share / 2)
        owen(value, first, (*inside, *leaves(second)), found, share / 2)


def leaves(part: Any) -> tuple[int, ...]:
    return (part,) if isinstance(part, int) else (*leaves(part[0]), *leaves(part[1]))


def test_partition_shap_is_the_definition_and_shaps() -> None:
    p = plain(EIGHT)
    value, found = valued(p.of_kept, 8), np.zeros(8)
    units = [Unit(index=i, text=str(i), word=i) for i in range(8)]
    halves = (((0, 1), (2, 3)), ((4, 5), (6, 7)))
    assert tree(units) == halves
    owen(value, halves, (), found)
    r = explained("partition-shap", EIGHT, baseline="mask")
    close(r.relevance[p.own], found)
    assert r.conservation_error < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap

    pairs = np.array(
        [[0, 1, 1, 2], [2, 3, 1, 2], [4, 5, 1, 2], [6, 7, 1, 2], [8, 9, 2, 4], [10, 11, 2, 4], [12, 13, 3, 8]]
    )
    masker = shap.maskers.Partition(np.zeros((1, 8)), clustering=pairs.astype(float))
    explainer = shap.PartitionExplainer(lambda rows: p.of_kept(torch.tensor(rows)).numpy(), masker)
    direct = explainer(np.ones((1, 8)), max_evals=500, silent=True)
    close(r.relevance[p.own], direct.values[0])


def test_words_stay_together_and_patches_are_halved() -> None:
    units = [
        Unit(index=i, text=str(i), word=word, stream=stream)
        for i, (word, stream) in enumerate(
            [(0, "input"), (1, "input"), (1, "input"), (2, "input"), (0, "decoder"), (None, "decoder")]
        )
    ]
    assert tree(units) == ((0, ((1, 2), 3)), (4, 5))
    patches = [
        Unit(index=i, text="", box=(x, y, x + 8, y + 8))
        for i, (x, y) in enumerate([(0, 0), (8, 0), (16, 0), (0, 8), (8, 8), (16, 8)])
    ]
    assert tree(patches) == ((0, 3), ((1, 4), (2, 5)))


def test_a_linkage_is_scipys() -> None:
    from scipy.cluster.hierarchy import is_valid_linkage, to_tree

    written = linkage((((0, 1), 2), (3, 4)), 5)
    assert is_valid_linkage(written)
    root = to_tree(written)
    assert sorted(root.left.pre_order()) == [0, 1, 2]
    assert sorted(root.right.pre_order()) == [3, 4]


def test_an_entry_of_the_gallery_is_what_it_was() -> None:
    """The functions by hand and clearhead look at the same model."""
    assert door(BERT).model is gallery(BERT).model
