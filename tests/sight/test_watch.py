"""What is seen of attention in plain torch and in modules that no library knows, and what seeing leaves behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clearhead.errors import ModelError
from clearhead.sight.capture import Sight, seen
from clearhead.sight.sites import Fused, Written
from clearhead.sight.trail import Step
from sight.families import TEXTS, family, ids, question
from tasks.gallery import lively, made

CLOSE = 1e-5
WIDTH, HEADS, LENGTH = 16, 4, 7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = drawn(1, LENGTH, WIDTH)


def built(make: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lively(make(*args, **kwargs))


def looked(model: nn.Module, x: Tensor = X, **more: Tensor) -> Sight:
    return seen(question(model, {"x": x, **more}))


def same(sight: Sight, *tables: Tensor) -> None:
    assert len(sight.layers) == len(tables)
    for layer, table in zip(sight.layers, tables, strict=True):
        torch.testing.assert_close(layer.site.matrix(), table, atol=CLOSE, rtol=0)


# ---- plain torch ----------------------------------------------------------------------------------------------------


class Alone(nn.Module):
    """One module that attends to itself, and may take the sequence first."""

    def __init__(self, *, batch_first: bool, need_weights: bool) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.batch_first, self.need_weights = batch_first, need_weights

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        return self.inner(x, x, x, need_weights=self.need_weights)[0]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_multihead_attention(batch_first, need_weights):
    model = built(Alone, batch_first=batch_first, need_weights=need_weights)
    x = X if batch_first else X.transpose(0, 1)
    with torch.no_grad():
        _, stated = model.inner(x, x, x, average_attn_weights=False)
    sight = looked(model)
    same(sight, stated[0])
    (layer,) = sight.layers
    assert isinstance(layer.site, Written if need_weights else Fused)
    assert layer.site.place.module == "inner"
    assert sight.covered(layer.query, LENGTH) == sight.covered(layer.key, LENGTH) == [(i,) for i in range(LENGTH)]


class Encoding(nn.Module):
    """A stack of layers, and the weights that its attentions state on the way."""

    def __init__(self, *, batch_first: bool, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=batch_first, norm_first=norm_first)
        self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first, self.norm_first = batch_first, norm_first

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return self.inner(x if self.batch_first else x.transpose(0, 1), src_key_padding_mask=padding_mask)

    @torch.no_grad()
    def stated(self, x: Tensor, padding_mask: Tensor | None) -> list[Tensor]:
        x, found = x if self.batch_first else x.transpose(0, 1), []
        for layer in self.inner.layers:
            asks = layer.norm1(x) if self.norm_first else x
            weights = layer.self_attn(asks, asks, asks, padding_mask, average_attn_weights=False)[1]
            found.append(weights[0])
            x = layer(x, src_key_padding_mask=padding_mask)
        return found


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_encoder(batch_first, norm_first, padded):
    """In evaluation mode and without gradients torch takes a way of its own, which computes the same."""
    model = built(Encoding, batch_first=batch_first, norm_first=norm_first)
    mask = torch.arange(LENGTH)[None] >= LENGTH - 2 if padded else None
    sight = looked(model, **({} if mask is None else {"padding_mask": mask}))
    same(sight, *model.stated(X, mask))
    with torch.no_grad():
        plainly = model(X, mask)
    torch.testing.assert_close(sight.outputs[0], plainly, atol=CLOSE, rtol=0)
    if padded:
        assert all((layer.site.matrix()[:, :, -2:] == 0).all() for layer in sight.layers)


class Decoding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, HEADS, 24, batch_first=True), 2)
        self.register_buffer("memory", drawn(1, 5, WIDTH, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, self.memory, tgt_mask=nn.Transformer.generate_square_subsequent_mask(LENGTH))


def test_a_transformer_decoder():
    model = built(Decoding)
    later, x, stated = nn.Transformer.generate_square_subsequent_mask(LENGTH), X, []
    with torch.no_grad():
        for layer in model.inner.layers:
            stated.append(layer.self_attn(x, x, x, attn_mask=later, average_attn_weights=False)[1][0])
            middle = layer.norm1(x + layer.self_attn(x, x, x, attn_mask=later)[0])
            stated.append(layer.multihead_attn(middle, model.memory, model.memory, average_attn_weights=False)[1][0])
            x = layer(x, model.memory, tgt_mask=later)
    sight = looked(model)
    same(sight, *stated)
    assert [layer.crossing for layer in sight.layers] == [False, True, False, True]
    assert {layer.key.name for layer in sight.layers} == {"x", ""}


# ---- modules that no library knows ----------------------------------------------------------------------------------


class Own(nn.Module):
    """Attention in a spelling of its own: `spelled(q, k, v, causal)` gives values, and weights [H, Q, K]."""

    def __init__(self, spelled: Any) -> None:
        super().__init__()
        self.project, self.spelled = nn.Linear(WIDTH, 3 * WIDTH), [spelled]

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)[0]

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.project(x).reshape(1, x.shape[1], 3, HEADS, -1).unbind(2)  # [B, T, H, D]
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        values, weights = self.spelled[0](q, k, v, later)
        return values, weights.clone()


def einsums(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
    scores *= q.shape[-1] ** -0.5
    scores.masked_fill_(later, float("-inf"))
    weights = scores.softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v), weights[0]


def heads_last(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.softmax(torch.einsum("...qhd,...khd->...qkh", q, k), dim=-2)
    return torch.einsum("...qkh,...khd->...qhd", weights, v), weights[0].permute(2, 0, 1)


def keys_first(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Columns add up to one, and values stand on the left."""
    weights = (k.transpose(1, 2) @ q.transpose(1, 2).mT).softmax(-2)
    return v.transpose(1, 2).mT @ weights, weights[0].mT


def implicit(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Without an arrow, letters that stand once are left, in the order of the alphabet."""
    weights = (q[0].transpose(0, 1) @ k[0].permute(1, 2, 0)).softmax(-1)[0]
    return torch.einsum("qk,kx", weights, v[0, :, 0]), weights[None]


def overwriting(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """One buffer for scores and for all that comes after them; queries and mask are overwritten too."""
    q, k, v = (each[0].transpose(0, 1).clone() for each in (q, k, v))
    scores = torch.bmm(q, k.mT)
    scores[:, later] = -1e9
    later.fill_(False)
    q.zero_()
    weights = scores.softmax(-1)
    scores.fill_(7)
    values, kept = weights @ v, weights.clone()
    weights.zero_()
    k.zero_()
    return values, kept


def masked_after(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    weights = torch.where(later, 0.0, (q @ k.mT).softmax(-1))
    return weights @ v, weights[0]


def one_of_many(q: Tensor, k: Tensor, v: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """A chance of its own, which would fall out otherwise a second time."""
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    weights = nn.functional.dropout((q @ k.mT).softmax(-1), 0.5, training=True)
    return weights @ v, weights[0]


SPELLINGS = [einsums, heads_last, keys_first, implicit, overwriting, masked_after, one_of_many]


@pytest.mark.parametrize("spelled", SPELLINGS, ids=lambda each: each.__name__)
def test_a_spelling_that_no_library_knows(spelled):
    model = built(Own, spelled)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        values, weights = model.both(X)
        torch.manual_seed(3)
        sight = looked(model)
    same(sight, weights)
    torch.testing.assert_close(sight.outputs[0], values, atol=CLOSE, rtol=0)
    (layer,) = sight.layers
    assert (layer.query.name, layer.key.name) == ("x", "x")


@pytest.mark.parametrize("spelled", SPELLINGS[:6], ids=lambda each: each.__name__)
def test_gradients_of_weights_stand_as_the_weights_do(spelled):
    """A step along the gradient of one weight changes the output as much as it says."""
    model = built(Own, spelled)
    sight = seen(question(model, {"x": X}), gradients="each")
    (layer,) = sight.layers
    (gradient,) = torch.autograd.grad(sight.outputs[0].square().sum(), [layer.site.output])
    assert gradient.reshape(-1, LENGTH, LENGTH).shape == layer.site.matrix().shape
    with torch.no_grad():
        v = model.project(X).reshape(1, LENGTH, 3, HEADS, -1)[0, :, 2].transpose(0, 1)[: layer.site.heads]
        expected = 2 * (layer.site.matrix() @ v) @ v.mT
    torch.testing.assert_close(gradient.reshape(expected.shape), expected, atol=1e-4, rtol=1e-4)


class Pooling(nn.Module):
    """A learned query looks at a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Parameter(drawn(1, 2, WIDTH, seed=2))
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.probe, x, x)[0]


def test_a_learned_query_is_no_unit():
    sight = looked(built(Pooling))
    (layer,) = sight.layers
    assert layer.site.matrix().shape == (HEADS, 2, LENGTH)
    assert sight.covered(layer.query, 2) == ["query", "query"]
    assert sight.covered(layer.key, LENGTH) == [(i,) for i in range(LENGTH)]


# ---- nothing found, nothing left ------------------------------------------------------------------------------------


def test_no_attention_is_an_error_that_says_what_was_looked_for():
    with pytest.raises(ModelError, match=r"softmax over keys weighs values.*scaled_dot_product_attention; Sequential"):
        seen(question(nn.Sequential(nn.Linear(WIDTH, 4), nn.Softmax(-1)), {"input": X}))


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Alone(batch_first=True, need_weights=False)

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        raise RuntimeError("out of luck")


def state(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "weights": {name: p.detach().clone() for name, p in model.state_dict(keep_vars=True).items()},
        "asking": {name: (p.requires_grad, p.grad, id(p)) for name, p in model.named_parameters()},
        "flags": {name: m.training for name, m in model.named_modules()},
        "hooks": {name: [len(getattr(m, each)) for each in hooks] for name, m in model.named_modules()},
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "modes": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.overrides._len_torch_function_stack(),
        ),
        "chance": torch.random.get_rng_state(),
    }


def unchanged(before: Any, after: Any) -> None:
    torch.testing.assert_close(after.pop("weights"), before.pop("weights"), atol=0, rtol=0)
    assert torch.equal(after.pop("chance"), before.pop("chance"))
    assert before == after


@pytest.mark.parametrize("gradients", [None, "late", "each"])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_model_is_left_as_it_was_found(gradients, enabled):
    model = copy.deepcopy(family("Gemma2").model)
    with torch.set_grad_enabled(enabled):
        asked = question(model, ids())
        before = state(model)
        sight = seen(asked, gradients=gradients)
        for layer in sight.layers:
            layer.site.matrix()
        unchanged(before, state(model))


@pytest.mark.parametrize("gradients", [None, "late", "each"])
def test_also_where_it_fails(gradients):
    model = built(Failing)
    asked = question(model, {"x": X})
    before = state(model)
    with pytest.raises(ModelError, match="out of luck"):
        seen(asked, gradients=gradients)
    unchanged(before, state(model))


# ---- memory ---------------------------------------------------------------------------------------------------------

LONG = 512
ROOM = {"max_position_embeddings": LONG + 2, "n_positions": LONG + 2, "max_seq_len": LONG}


@pytest.mark.parametrize("name", ["Bert", "Llama", "Gemma2", "GptOss", "Bloom", "Mpt", "GPTNeo", "MPNet", "Deberta"])
def test_no_table_of_a_long_text_is_kept(name):
    """Weights that the model writes out, with masks, biases and relative positions, are made again from less."""
    longer = {key: value for key, value in ROOM.items() if key in {"max_position_embeddings", *TEXTS[name]}}
    model = made(name, "Model", **{**TEXTS[name], **longer})
    model.set_attn_implementation("eager")
    sight = seen(question(model, ids(LONG)))
    for layer in sight.layers:
        assert isinstance(layer.site, Written)
        assert isinstance(layer.site.weights, Step)
        assert layer.site.weights.held < 0.25 * layer.site.heads * LONG * LONG * 4


def test_training_after_looking_changes_nothing():
    """The biases of relative positions are made again from weights: from those that the model had."""
    model = copy.deepcopy(family("MPNet").model)
    sight = seen(question(model, ids(60)))
    assert all(isinstance(layer.site, Written) and isinstance(layer.site.weights, Step) for layer in sight.layers)
    before = [layer.site.matrix() for layer in sight.layers]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    for layer, table in zip(sight.layers, before, strict=True):
        assert torch.equal(layer.site.matrix(), table)
