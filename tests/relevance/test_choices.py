"""Which layer has which rule: by path, by number, by what it does; the last that fits counts; presets on models."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layer_oracles
import oracles
from clearhead.config import PRESETS, Settings
from clearhead.errors import UsageError
from clearhead.relevance import choices, propagate
from clearhead.rulebook import Where
from relevance.twins import array, inputs, lively, residual


class Net(nn.Module):
    """A patch layer, two numbered blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"projection": nn.Conv2d(1, 4, 2, stride=2)})
        self.layer = nn.ModuleList(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(2))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.embeddings["projection"](x).flatten(2).transpose(1, 2)
        for block in self.layer:
            x = block(x)
        return self.head(x)


LAYERS = ["embeddings.projection", "layer.0.0", "layer.0.2", "layer.1.0", "layer.1.2", "head"]


@cache
def net() -> nn.Module:
    return lively(Net())


def slowly(by_layer: dict[str, tuple[str, dict]]) -> np.ndarray:
    """The relevance of the input under the rules of each layer, by the oracles."""
    x, model = array(inputs(1, 1, 4, 4)).ravel(), net()
    parts = dict(model.named_modules())

    def layer(path):
        rule, numbers = by_layer[path]
        module = parts[path]
        if rule in layer_oracles.RULES:
            return layer_oracles.Ruled(array(module.weight), array(module.bias), rule, **numbers)
        return oracles.Linear(array(module.weight), array(module.bias))

    relu = oracles.Pointwise("relu")
    blocks = [each for n in range(2) for each in (layer(f"layer.{n}.0"), relu, layer(f"layer.{n}.2"))]
    slow = oracles.Sequence(*blocks, layer("head"))
    conv = parts["embeddings.projection"]
    W, wired = layer_oracles.convolution(array(conv.weight), (1, 4, 4), stride=2)
    b = np.repeat(array(conv.bias), 4)
    z = W @ x + b
    books = oracles.Books(oracles.Rules(rule="0", leak="record"))
    slow.forward(z.reshape(4, 4).T)
    R = slow.backward(slow.layers[-1].z * np.array([1.0, -0.5]), books).T.ravel()
    rule, numbers = by_layer["embeddings.projection"]
    if rule in layer_oracles.RULES:
        return layer_oracles.RULES[rule](W, wired, x, b, R, **numbers).R
    return sum(x * W[j] * R[j] / z[j] for j in range(len(z)))


def found(rules, **settings) -> np.ndarray:
    weights = torch.tensor([1.0, -0.5]).double()
    chosen = Settings(**{"rule": "0", "leak": "record", "rules": rules, **settings})
    p = propagate(lambda t: (net()(t) * weights).sum(), [inputs(1, 1, 4, 4)], chosen, model=net())
    assert residual(p) <= 1e-12
    return p.sources[0].relevance.flatten().numpy()


def expected(**ruled) -> dict[str, tuple[str, dict]]:
    return {path: ruled.get(path.replace(".", "_"), ("0", {})) for path in LAYERS}


GAMMA, HALF = ("gamma", {}), ("gamma", {"gamma": 0.5})
TABLES = {
    "path": ({"layer.1.0": "gamma"}, expected(layer_1_0=GAMMA)),
    "glob": ({"*.2": "z+"}, expected(layer_0_2=("z+", {}), layer_1_2=("z+", {}))),
    "what lies inside": ({"layer.0": "gamma"}, expected(layer_0_0=GAMMA, layer_0_2=GAMMA)),
    "number": ({"1..1": "gamma"}, expected(layer_1_0=GAMMA, layer_1_2=GAMMA)),
    "open end": ({"0..": "gamma"}, expected(layer_0_0=GAMMA, layer_0_2=GAMMA, layer_1_0=GAMMA, layer_1_2=GAMMA)),
    "open start": ({"..0": "gamma"}, expected(layer_0_0=GAMMA, layer_0_2=GAMMA)),
    "convolutions": ({"convolutions": "gamma"}, expected(embeddings_projection=GAMMA)),
    "input": ({"input": "w2"}, expected(embeddings_projection=("w2", {}))),
    "input by its path": ({"*embeddings*": "flat"}, expected(embeddings_projection=("flat", {}))),
    "numbers": ({"layer.[0-1].0": {"rule": "gamma", "gamma": 0.5}}, expected(layer_0_0=HALF, layer_1_0=HALF)),
    "the last counts": (
        {"*": "gamma", "layer.1.*": {"rule": "gamma", "gamma": 0.5}, "input": "flat", "head": "0"},
        expected(layer_0_0=GAMMA, layer_0_2=GAMMA, layer_1_0=HALF, layer_1_2=HALF, embeddings_projection=("flat", {})),
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_each_layer_has_the_rule_that_the_table_says(case):
    rules, by_layer = TABLES[case]
    np.testing.assert_allclose(found(rules), slowly(by_layer), rtol=1e-9, atol=1e-12)


def test_a_table_that_names_every_layer_is_the_rule_of_all():
    np.testing.assert_array_equal(found({"*": "gamma"}), found({}, rule="gamma"))


def test_the_numbers_of_settings_hold_for_rules_that_say_none():
    np.testing.assert_array_equal(
        found({"*": "gamma"}, gamma=2.0), found({"*": {"rule": "gamma", "gamma": 2.0}}, gamma=0.1)
    )


def test_a_module_is_looked_up_once(monkeypatch):
    asked = []
    means = Where.means
    monkeypatch.setattr(choices, "_KNOWN", {})
    monkeypatch.setattr(Where, "means", lambda self, path, **how: asked.append(path) or means(self, path, **how))
    rules = {"layer.*": "gamma"}
    found(rules)
    first = len(asked)
    assert first > 0
    found(rules)
    assert len(asked) == first


def test_without_rules_nothing_is_looked_up(monkeypatch):
    monkeypatch.setattr(choices, "Choices", None)
    found({})


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"layers.0": "gamma"}, r"no path matches 'layers.0'. Did you mean 'layer.0'"),
        ({"*embeding*": "gamma"}, r"Did you mean '.*embeddings.*'"),
        ({"*projection.x": "gamma"}, "no path matches"),
        ({"7..9": "gamma"}, "found '7..9', and the model has layers 0 to 1"),
    ],
)
def test_a_pattern_that_means_nothing_names_what_is_near(rules, said):
    with pytest.raises(UsageError, match=said):
        found(rules)


def test_paths_need_a_model():
    with pytest.raises(UsageError, match="need the model"):
        propagate(lambda t: t.sum(), [inputs(2)], Settings(rules={"a.b": "gamma"}))


@pytest.mark.parametrize(
    ("words", "path", "means"),
    [
        ("encoder", "encoder.layer.3.dense", True),
        ("encoder.layer.3", "encoder.layer.30.dense", False),
        ("*layer.[0-3].*", "a.layer.3.dense", True),
        ("*layer.[0-3].*", "a.layer.13.dense", False),
        ("2..4", "a.layer.4.mlp.0", True),
        ("2..4", "a.layer.5.mlp.3", False),
        ("2..4", "a.head", False),
        ("input", "input", False),
        ("convolutions", "convolutions", False),
        ("", "", True),
    ],
)
def test_what_words_mean(words, path, means):
    assert Where(words).means(path) is means


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rule": "w2"}, r"the layer that reads the input.*rules=\{'input': 'w2'\}"),
        ({"rules": {"a": "gama"}}, "must be one of .* found 'gama'. Did you mean 'gamma'"),
        ({"rules": {"a": {"gamma": 1}}}, "a table with `rule`"),
        ({"rules": {"a": {"rule": "gamma", "alpha": 1}}}, "are: gamma; found 'alpha'"),
        ({"rules": {"a": {"rule": "gamma", "gamma": "1"}}}, "must be a finite number; found '1'"),
        ({"rules": {"a": {"rule": "gamma", "gamma": -1}}}, "`gamma` must be 0 or larger; found -1"),
        ({"rules": "gamma"}, "must be a table of layers"),
        ({"gamma": -0.5}, "`gamma` must be 0 or larger"),
        ({"alpha": 0.5}, "`alpha` must be 1 or larger"),
        ({"low": 1.0}, "found only one of them"),
        ({"low": 1.0, "high": 0.0}, "`low` must be below `high`"),
        ({"residual_gamma": -1.0}, "`residual_gamma` must be 0 or larger"),
        ({"residual_rule": "gama"}, "Did you mean 'gamma'"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(UsageError, match=said):
        Settings.resolve(**given)


def test_tables_are_stacked_and_the_last_word_stands_last(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('preset = "vision"\n[rules]\n"a" = "z+"\ninput = {rule = "gamma", gamma = 0.5}\n', encoding="utf-8")
    settings, origins = Settings.resolve(file=file, rules={"a": "0", "b": "gamma"})
    assert list(settings.rules.items()) == [
        ("convolutions", "gamma"),
        ("input", {"rule": "gamma", "gamma": 0.5}),
        ("a", "0"),
        ("b", "gamma"),
    ]
    assert (settings.method, origins["rules"], origins["residual_rule"]) == ("lrp", "given", "preset vision")


def test_a_rule_means_lrp_and_settings_are_their_own():
    rules = {"input": "w2"}
    settings, _ = Settings.resolve(rules=rules)
    rules["input"] = "flat"
    assert (settings.method, settings.rules) == ("lrp", {"input": "w2"})
    assert hash(settings) == hash(Settings(method="lrp"))


# ---- presets on whole models ---------------------------------------------------------------------------------------


SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}


@cache
def whole(kind: str) -> nn.Module:
    import transformers as t

    image = {"image_size": 8, "num_channels": 3, "num_labels": 3}
    configs = {
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**SIZES, **image, patch_size=4)),
        "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**SIZES, vocab_size=20, num_labels=3)),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, n_positions=8)),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SIZES, vocab_size=20)),
        "convnext": lambda: t.ConvNextForImageClassification(
            t.ConvNextConfig(num_stages=2, hidden_sizes=[4, 6], depths=[1, 1], num_labels=3)
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lively(configs[kind]().eval(), seed=4)


def of_model(kind: str, settings: Settings, dtype: torch.dtype):
    model = whole(kind).to(dtype)
    if kind in ("vit", "convnext"):
        x = inputs(1, 3, 8, 8, dtype=dtype) if kind == "vit" else inputs(1, 3, 16, 16, dtype=dtype)
        return propagate(lambda t: model(pixel_values=t).logits[0, 1], [x], settings, model=model)
    ids = torch.tensor([[1, 4, 7, 7, 12]])
    return propagate(lambda: model(input_ids=ids).logits[..., 1].reshape(-1)[-1], [], settings, model=model)


CHOSEN = {
    **{name: {"preset": name} for name in PRESETS},
    "z+": {"rule": "z+"},
    "all at once": {"rule": "gamma", "residual_rule": "gamma", "rules": {"0..1": "z+", "*1*": "epsilon"}},
    "attnlrp with residual gamma": {"preset": "attnlrp", "residual_rule": "gamma", "leak": "return"},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("kind", ["vit", "bert", "gpt2", "llama", "convnext"])
def test_models_conserve(kind, name, dtype):
    if kind == "llama" and dtype == torch.float64:
        pytest.skip("its norms compute in float32, whatever its weights are")
    settings, _ = Settings.resolve(**CHOSEN[name])
    p = of_model(kind, settings, dtype)
    narrow = dtype == torch.float32
    assert residual(p) <= (1e-5 if narrow else 1e-12)
    assert all(math.isfinite(entry.relevance) for entry in p.ledger)
    if settings.leak == "return":
        lost = sum(entry.relevance for entry in p.ledger if not entry.returned)
        gap = p.value - sum(float(s.relevance.sum()) for s in p.sources)
        moved = sum(float(s.relevance.abs().sum()) for s in p.sources)
        assert abs(gap - lost) <= max(1e-4 * abs(p.value), 1e-6 * moved) * (1 if narrow else 1e-5)
        assert abs(lost) <= 1e-4 * moved


@pytest.mark.parametrize("rule", ["w2", "flat", "zB"])
def test_an_image_model_ends_at_its_pixels(rule):
    settings = Settings.resolve(preset="vision", rules={"input": rule}, low=-9.0, high=9.0)[0]
    p = of_model("vit", settings, torch.float64)
    assert residual(p) <= 1e-12
    assert float(p.sources[0].gradient.abs().max()) == 0  # all of it went straight
    assert float(p.sources[0].own.abs().max()) > 0
    assert not [e for e in p.ledger if "embeddings" in e.module and e.cause == "bias"]


def test_a_gamma_of_nothing_everywhere_is_rule_0_on_a_model():
    plain = Settings(rule="0", leak="record")
    bounded = Settings(rule="gamma", gamma=0.0, residual_rule="gamma", residual_gamma=0.0, leak="record")
    one, two = (of_model("bert", settings, torch.float64) for settings in (plain, bounded))
    for a, b in zip(one.sources, two.sources, strict=True):
        np.testing.assert_allclose(a.relevance, b.relevance, rtol=1e-9, atol=1e-12)


# ---- residual sums -------------------------------------------------------------------------------------------------


class Skip(nn.Module):
    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.first, self.second, self.spelling = nn.Linear(4, 6), nn.Linear(6, 4), spelling

    def forward(self, x):
        h = self.second(F.gelu(self.first(x)))
        if self.spelling == "in place":
            y = x.clone()
            y += h
            return y
        return {"x + h": lambda: x + h, "h + x": lambda: h + x, "add": lambda: torch.add(x, h, alpha=-0.5)}[
            self.spelling
        ]()


class Halved(oracles.Scale):
    def backward(self, R, books):
        return R


@pytest.mark.parametrize("leak", ["return", "record"])
@pytest.mark.parametrize("spelling", ["x + h", "h + x", "in place", "add"])
def test_a_residual_sum_is_the_oracle(spelling, leak):
    from relevance.twins import agree

    model = lively(nn.Sequential(nn.Linear(4, 4), Skip(spelling), Skip(spelling), nn.Linear(4, 2)))

    def slow(part):
        if isinstance(part, nn.Linear):
            return oracles.Linear(array(part.weight), array(part.bias))
        body = [slow(part.first), oracles.Pointwise("gelu"), slow(part.second)]
        body += [Halved(-0.5)] if spelling == "add" else []
        return layer_oracles.Bounded(oracles.Sequence(*body), 0.7)

    c = np.array([[1.0, -2.0]] * 3)
    settings = Settings(rule="epsilon", residual_rule="gamma", residual_gamma=0.7, leak=leak)
    oracle = oracles.Sequence(*map(slow, model))
    agree(lambda t: (model(t) * torch.from_numpy(c)).sum(), inputs(3, 4), oracle, c, settings, model)


def shares(function, *, gamma: float = 1.0):
    x = inputs(3, 4)
    bounded = Settings(rule="0", leak="record", residual_rule="gamma", residual_gamma=gamma)
    plain, own = (
        propagate(function, [x], settings).sources[0].relevance
        for settings in (Settings(rule="0", leak="record"), bounded)
    )
    return plain, own


W, V = inputs(4, 4, seed=2), inputs(4, 4, seed=3)
NONE = {
    "two branches of one tensor": lambda x: x * V[0] + x.flip(-1) * V[1],
    "a pointwise function": lambda x: x + 0.04 * x**3,
    "something less its mean": lambda x: x + -x.mean(-1, keepdim=True),
    "two layers beside each other": lambda x: F.linear(x, W) + F.linear(x, V),
    "a number": lambda x: x + 1.0,
}
SOME = {
    "x + f(x)": lambda x: x + F.linear(x, W),
    "behind a view": lambda x: x.reshape(12) + F.linear(x, W).reshape(12),
    "parallel": lambda x: F.linear(x, W) + F.linear(x, V) + x,
    "further on": lambda x: x + F.linear(torch.tanh(F.linear(x, W)), V),
}


@pytest.mark.parametrize("name", NONE)
def test_other_sums_are_left_alone(name):
    plain, own = shares(lambda x: (F.linear(NONE[name](F.linear(x, V)), W)).sum())
    np.testing.assert_array_equal(plain, own)


@pytest.mark.parametrize("name", SOME)
def test_residual_sums_are_found(name):
    plain, own = shares(lambda x: (SOME[name](F.linear(x, V)) * 1.0).sum())
    assert float((plain - own).abs().max()) > 1e-3
    assert float(own.sum()) == pytest.approx(float(plain.sum()), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
def test_both_terms_get_what_the_formula_says_also_where_they_cancel(gamma):
    a = torch.tensor([1.0, 1.0, 0.0, 2.0, -1.0, 0.0]).double()
    b = torch.tensor([-1.0 + 1e-9, 3.0, 0.0, -2.0, -4.0, 5.0]).double()
    settings = Settings(rule="0", leak="record", residual_rule="gamma", residual_gamma=gamma)
    p = propagate(lambda a, b: (a + (a * 0.0 + b)).sum(), [a, b], settings)
    got = [source.relevance.numpy() for source in p.sources]
    for n, (x, h) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        weighted = [z * (1 + gamma * (z * (x + h) > 0)) for z in (x, h)]
        whole = sum(weighted)
        for each, found_ in zip(weighted, (got[0][n], got[1][n]), strict=True):
            assert found_ == pytest.approx(each / whole * (x + h) if x + h else 0.0, abs=1e-12)
        assert abs(got[0][n]) + abs(got[1][n]) <= (1 + 2 / gamma) * abs(x + h) + 1e-12
    assert residual(p) <= 1e-12


def test_terms_that_are_nothing_pass_the_gradient_on():
    p = propagate(
        lambda a: (a + a * V[0]).sum(), [torch.zeros(4).double()], Settings(residual_rule="gamma", leak="record")
    )
    np.testing.assert_allclose(p.sources[0].gradient, 1 + V[0], rtol=1e-12)
