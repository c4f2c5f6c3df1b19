"""Three models that no library knows, written to have what models have: all is explained, and nothing is lost."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clearhead import AttentionVisualizer
from relevance.twins import lively


class Router(nn.Module):
    """A mixture of experts: each position goes to two of four, by a softmax over the chosen; one expert is shared."""

    def __init__(self, d: int, experts: int = 4) -> None:
        super().__init__()
        self.gate = nn.Linear(d, experts, bias=False)
        self.up, self.down = nn.Parameter(torch.randn(experts, d, 2 * d)), nn.Parameter(torch.randn(experts, d, d))
        self.shared = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        scores, chosen = self.gate(x).topk(2, dim=-1)
        y = self.shared(x)
        for n, weight in enumerate(scores.softmax(-1).unbind(-1)):
            wide = torch.einsum("btd,btde->bte", x, self.up[chosen[..., n]])
            value, gate = wide.chunk(2, -1)
            narrow = torch.einsum("bte,bted->btd", value * F.silu(gate), self.down[chosen[..., n]])
            y = y + weight.unsqueeze(-1) * narrow
        return y


class Alibi(nn.Module):
    """Windowed attention over a cache that is written in place, with a distance for a bias, a sink and a soft cap."""

    def __init__(self, d: int, heads: int, window: int = 4) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.sink = nn.Parameter(torch.randn(heads))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        cache = x.new_zeros(3, b, t, d)
        cache[0], cache[1], cache[2] = self.qkv(x).chunk(3, -1)
        q, k, v = (each.view(b, t, self.heads, -1).transpose(1, 2) for each in cache)
        far = torch.arange(t)[:, None] - torch.arange(t)[None, :]
        slopes = torch.tensor([2.0 ** -(n + 1) for n in range(self.heads)], dtype=x.dtype)
        scores = 5 * torch.tanh(q @ k.mT / math.sqrt(q.shape[-1]) / 5) - slopes[:, None, None] * far
        scores = scores.masked_fill((far < 0) | (far >= self.window), -math.inf)
        scores = torch.cat([scores, self.sink.view(1, -1, 1, 1).expand(b, -1, t, 1)], -1)
        weights = scores.softmax(-1)[..., :-1]
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))


class Mixtures(nn.Module):
    """Experts and a windowed attention, the same block twice, its last matrix tied to the embedding."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.embed, self.scale = nn.Embedding(30, d), nn.Parameter(torch.ones(d))
        self.attend, self.feed = Alibi(d, 2), Router(d)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for _ in range(2):
            x = x + self.attend(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale)
            x = x + self.feed(F.rms_norm(x, x.shape[-1:]))
        return x @ self.embed.weight.T


class Scan(nn.Module):
    """A selective state space, step by step: a state that decays by what is read."""

    def __init__(self, d: int, state: int = 4) -> None:
        super().__init__()
        self.read, self.rate, self.log = nn.Linear(d, 2 * state), nn.Linear(d, d), nn.Parameter(torch.randn(d, state))
        self.skip = nn.Parameter(torch.randn(d))

    def forward(self, x: Tensor) -> Tensor:
        into, out = self.read(x).chunk(2, -1)
        step = F.softplus(self.rate(x)).unsqueeze(-1)
        decay = torch.exp(-step * self.log.exp())
        put = step * into.unsqueeze(-2) * x.unsqueeze(-1)
        state, found = torch.zeros_like(put[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + put[:, t]
            found.append((state * out[:, t].unsqueeze(-2)).sum(-1))
        return torch.stack(found, 1) + x * self.skip


class Waves(nn.Module):
    """Fourier mixing, a gated convolution, linear attention by running sums, and a scan; batch norms between."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.embed, self.scan = nn.Embedding(30, d), Scan(d)
        self.conv, self.norm = nn.Conv1d(d, 2 * d, 3, padding=2, groups=2), nn.BatchNorm1d(d)
        self.qkv, self.head = nn.Linear(d, 3 * d), nn.Linear(d, 3)
        self.filter = nn.Parameter(torch.randn(d // 2 + 1, 2))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = x + torch.fft.irfft(torch.fft.rfft(x, dim=-1) * torch.view_as_complex(self.filter), n=x.shape[-1], dim=-1)
        x = x + F.glu(self.conv(x.mT)[..., : x.shape[1]], 1).mT
        x = self.norm(x.mT).mT
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kept = torch.einsum("btd,bte->btde", k, v).cumsum(1)
        x = x + torch.einsum("btd,btde->bte", q, kept) / torch.einsum("btd,btd->bt", q, k.cumsum(1)).unsqueeze(-1)
        return self.head((x + self.scan(x)).mean(1))


class Squash(torch.autograd.Function):
    """A function of its own, whose way back is a straight line."""

    @staticmethod
    def forward(ctx, x):
        return x / (1 + x.abs())

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Slots(nn.Module):
    """Learned slots that compete for positions by cosines, in an encoder layer of torch, recomputed to save memory."""

    def __init__(self, d: int = 8, slots: int = 3) -> None:
        super().__init__()
        self.embed, self.slots = nn.Embedding(30, d), nn.Parameter(torch.randn(1, slots, d))
        self.layer = nn.TransformerEncoderLayer(d, 2, 16, batch_first=True, norm_first=True)
        self.cross, self.cell = nn.MultiheadAttention(d, 2, batch_first=True), nn.GRUCell(d, d)
        self.group, self.head = nn.GroupNorm(2, d), nn.Bilinear(d, d, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = checkpoint(self.layer, self.embed(input_ids), use_reentrant=False)
        slots = self.slots.expand(len(x), -1, -1)
        for _ in range(2):
            near = F.normalize(slots, dim=-1) @ F.normalize(x, dim=-1).mT
            shares = (near * 4).softmax(1)
            read = shares / shares.sum(-1, keepdim=True) @ x + self.cross(slots, x, x)[0]
            slots = self.cell(read.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
        slots = Squash.apply(self.group(slots.mT).mT)
        return self.head(slots[:, 0], slots[:, 1:].amax(1))


MODELS = {each.__name__: each for each in (Mixtures, Waves, Slots)}
IDS = {"input_ids": torch.tensor([[3, 17, 5, 9, 22, 11, 5]])}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = lively(MODELS[name]())
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net.eval().requires_grad_(False)


def score(y: Tensor) -> Tensor:
    return y[0, -1, 4] if y.dim() == 3 else y[0, 1]


@pytest.mark.parametrize("name", MODELS)
def test_relevance_adds_up_and_every_operation_has_a_rule(name):
    net = made(name).double()
    found = AttentionVisualizer(net).explain(IDS, target=score, method="lrp", strict=True)
    assert found.value == pytest.approx(score(net(**IDS)).item(), rel=1e-12)
    assert found.conservation_error < 1e-9
    assert found.relevance.any()


@pytest.mark.parametrize("name", MODELS)
def test_the_published_rules_leave_nothing_unsaid(name):
    found = AttentionVisualizer(made(name).double()).explain(IDS, target=score, preset="attnlrp", strict=True)
    assert found.residual < 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_the_difference_to_a_baseline_adds_up(name):
    """But for what another choice of experts, or of a largest slot, does to the baseline, which is named."""
    found = AttentionVisualizer(made(name).double()).explain(IDS, target=score, method="secant", strict=True)
    assert found.residual < 1e-9
    assert {entry.cause for entry in found.ledger} <= {"selection"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["lrp", "secant"])
def test_in_single_precision_it_is_the_same(name, method):
    asked = {"target": score, "method": method}
    single, exact = (
        AttentionVisualizer(net).explain(IDS, **asked).relevance for net in (made(name), made(name).double())
    )
    assert single == pytest.approx(exact, rel=2e-3, abs=1e-4 * abs(exact).max())
