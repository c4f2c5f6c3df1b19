"""Models whose weights lie elsewhere, on several devices or in several float types, are explained as any other."""

from __future__ import annotations

import copy
from itertools import cycle

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.checks import Choices
from clearhead.errors import ModelError
from clearhead.memory import home
from clearhead.relevance.ledger import Ledger, Place
from clearhead.sanity import randomised
from clearhead.tape import Names
from tasks.gallery import gallery

ASKED = {
    "lrp": {"method": "lrp"},
    "secant": {"method": "secant"},
    "integrated-gradients": {"method": "integrated-gradients", "steps": 4},
    "attention": {"method": "attention"},
    "gradcam": {"method": "gradcam"},
}
ENTRIES = ("text-classification/bert", "image-classification/dinov2-registers")
EXACT = {torch.float64: 1e-9, torch.float32: 1e-5}


def explained(model: nn.Module, name: str, **asked):
    one = gallery(name)
    return AttentionVisualizer(model, one.processor, task=one.task).explain(one.inputs[0], **asked)


def same(found, expected, most: float) -> None:
    assert [unit.text for unit in found.units] == [unit.text for unit in expected.units]
    assert found.value == pytest.approx(expected.value, rel=most)
    assert np.abs(found.relevance - expected.relevance).max() <= most * max(1, np.abs(expected.relevance).max())
    assert found.warnings == expected.warnings
    assert found.recipe.model_fingerprint == expected.recipe.model_fingerprint


def described(model: nn.Module) -> dict[str, tuple]:
    return {name: (type(p), p.requires_grad, p.dtype, p.device) for name, p in model.named_parameters()}


# ---- weights that a hook loads --------------------------------------------------------------------------------------


class Loading(nn.Module):
    """Round a module whose weights lie in a drawer while it is not called."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.drawer = {name: p.detach().clone() for name, p in inner.named_parameters()}
        inner.to("meta")
        inner.register_forward_pre_hook(self.load)
        inner.register_forward_hook(self.drop)

    def load(self, module, args) -> None:
        for name, value in self.drawer.items():
            module._parameters[name] = nn.Parameter(value.clone()).to("cpu")

    def drop(self, module, args, result) -> None:
        for name in self.drawer:
            module._parameters[name] = nn.Parameter(module._parameters[name].to("meta"))

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).double().eval()


X = {"input": torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(1, 8)}


@pytest.mark.parametrize("method", ["lrp", "secant"])
def test_weights_that_a_hook_loads_are_there_on_the_way_back(method):
    plain = net()
    loading = nn.Sequential(*(Loading(each) if list(each.parameters()) else each for each in copy.deepcopy(plain)))
    before = described(loading)
    found, expected = (AttentionVisualizer(m).explain(X, target=0, method=method) for m in (loading, plain))
    assert np.abs(found.relevance - expected.relevance).max() < 1e-12
    assert found.residual < 1e-9
    assert described(loading) == before  # what `to` gave the hook was a parameter, as without a tape


def test_without_a_hook_weights_on_the_meta_device_are_refused():
    model = net()
    model[3].to("meta")
    with pytest.raises(ModelError, match=r"has '3.weight' there, and no hook"):
        AttentionVisualizer(model)


def test_inputs_go_to_the_first_weight_that_is_there():
    model = net()
    model[0].to("meta")
    assert home(model) == torch.device("cpu")
    assert home(net().to("meta")) == torch.device("cpu")
    assert home(nn.BatchNorm1d(3, affine=False)) == torch.device("cpu")


def test_names_are_those_of_what_is_loaded_now():
    layer, names = nn.Linear(2, 2, device="meta"), None
    names = Names(layer)
    assert names.of(torch.ones(2, 2)) is None
    layer.weight = nn.Parameter(torch.ones(2, 2))
    assert names.of(layer.weight[0]) == "weight"
    old = layer.weight
    layer.weight = nn.Parameter(torch.ones(2, 2))
    assert names.of(layer.weight) == "weight"
    assert names.of(old) is None


# ---- accelerate -----------------------------------------------------------------------------------------------------


def offloaded(model: nn.Module, way: str, folder) -> nn.Module:
    accelerate = pytest.importorskip("accelerate")
    if way == "cpu":
        accelerate.cpu_offload(model, "cpu")
    elif way == "disk":
        accelerate.disk_offload(model, str(folder), "cpu")
    else:
        places = {name: "cpu" for name, _ in model.named_parameters(recurse=False)}
        for (name, child), turn in zip(model.named_children(), cycle(["cpu", "disk"])):
            parts = [f"{name}.{part}" for part, _ in child.named_children()]
            places.update(zip(parts, cycle(["disk", "cpu"])) if parts else {name: turn})
        accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True)
    assert any(p.is_meta for p in model.parameters())
    return model


WAYS = [*((way, asked) for way in ("cpu", "some of both") for asked in ASKED), ("disk", "lrp")]


@pytest.mark.parametrize(("way", "asked"), WAYS)
@pytest.mark.parametrize("name", ENTRIES)
def test_offloaded_weights_change_nothing(name, way, asked, tmp_path):
    plain = copy.deepcopy(gallery(name).model).double()
    model = offloaded(copy.deepcopy(plain), way, tmp_path)
    before = described(model)
    same(explained(model, name, **ASKED[asked]), explained(plain, name, **ASKED[asked]), EXACT[torch.float64])
    assert described(model) == before


def test_offloaded_weights_in_single_precision(tmp_path):
    model = offloaded(copy.deepcopy(gallery(ENTRIES[0]).model), "some of both", tmp_path)
    same(explained(model, ENTRIES[0]), explained(gallery(ENTRIES[0]).model, ENTRIES[0]), EXACT[torch.float32])


def test_weights_that_are_elsewhere_are_not_made_random(tmp_path, monkeypatch):
    """Shuffling what is not there would change nothing, and say that weights do not matter."""
    one = gallery(ENTRIES[0])
    model = offloaded(copy.deepcopy(one.model), "cpu", tmp_path)
    monkeypatch.setattr("clearhead.validating.tested", lambda *_: pytest.fail("weights are made random"))
    asked = {"methods": ["attention"], "removals": ["zero"], "choices": Choices(points=2, orders=2, steps=0, sets=0)}
    found = AttentionVisualizer(model, one.processor, task=one.task).validate("a good and beautiful film", **asked)
    assert any("weights are offloaded" in note for note in found.notes)
    with pytest.raises(ModelError, match="to be made random"), randomised(model.parameters()):
        pass


def test_a_weight_that_no_hook_loads_in_time_is_told(tmp_path):
    """DeBERTa reads the table of relative positions past the module that holds it."""
    name = "text-classification/deberta"
    model = offloaded(copy.deepcopy(gallery(name).model), "cpu", tmp_path)
    with pytest.raises(ModelError, match=r"Some weights are offloaded.*Load the model whole"):
        explained(model, name)


@pytest.mark.parametrize("places", ["auto", "cpu", {"bert": "disk", "classifier": "cpu"}])
def test_a_folder_is_loaded_by_a_device_map(places, tmp_path):
    pytest.importorskip("accelerate")
    one = gallery(ENTRIES[0])
    one.model.save_pretrained(tmp_path)
    one.processor.save_pretrained(tmp_path)
    found, expected = (
        AttentionVisualizer.from_pretrained(tmp_path, **more).explain(one.inputs[0])
        for more in ({"device_map": places}, {})
    )
    same(found, expected, EXACT[torch.float32])


# ---- several devices ------------------------------------------------------------------------------------------------


def test_amounts_of_the_ledger_are_stacked_by_shape_type_and_device(monkeypatch):
    """A second device that computes is not at hand: types stand for devices, for neither may be stacked together."""
    ledger, stacked = Ledger(), []
    for call, amount in enumerate((torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(3), torch.ones(2))):
        ledger.book("bias", Place("linear", f"layer {call}", call), amount)
    stack = torch.stack

    def watched(parts):
        stacked.append({(part.shape, part.dtype, part.device) for part in parts})
        return stack(parts)

    monkeypatch.setattr(torch, "stack", watched)
    assert [entry.relevance for entry in ledger.entries()[0]] == [2, 2, 3, 2]
    assert [len(kinds) for kinds in stacked] == [1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", ENTRIES)
def test_cpu_and_cuda_agree(name, asked):
    plain = copy.deepcopy(gallery(name).model).double()
    model = copy.deepcopy(plain).cuda()
    same(explained(model, name, **ASKED[asked]), explained(plain, name, **ASKED[asked]), 1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", ENTRIES)
def test_a_model_over_cpu_and_cuda(name, asked):
    """Every second part of the model on the other device, first on the CPU, then on the GPU."""
    accelerate = pytest.importorskip("accelerate")
    plain = copy.deepcopy(gallery(name).model).double()
    model, places = copy.deepcopy(plain), {}
    for (path, child), turn in zip(model.named_children(), cycle(["cpu", 0])):
        parts = [f"{path}.{part}" for part, _ in child.named_children()]
        places.update(zip(parts, cycle(["cpu", 0])) if parts else {path: turn})
    accelerate.dispatch_model(model, places, main_device=0)
    same(explained(model, name, **ASKED[asked]), explained(plain, name, **ASKED[asked]), 1e-9)


# ---- several float types --------------------------------------------------------------------------------------------


class Wide(nn.Module):
    """A module that computes in float32 whatever it is given, and hands on what it was given or, as a head, float32."""

    def __init__(self, inner: nn.Module, *, back: bool) -> None:
        super().__init__()
        self.inner, self.back = inner.float(), back

    def forward(self, x):
        y = self.inner(x.float())
        return y.to(x.dtype) if self.back else y


def mixed(model: nn.Module) -> nn.Module:
    """A body in bfloat16, norms and the head in float32."""
    found = copy.deepcopy(model).bfloat16()
    for path, module in list(found.named_modules()):
        if isinstance(module, nn.LayerNorm) or path == "classifier":
            owner, _, name = path.rpartition(".")
            setattr(found.get_submodule(owner), name, Wide(module, back=path != "classifier"))
    return found


class Autocast(nn.Module):
    """A model whose products are in bfloat16."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, input_ids, attention_mask, token_type_ids):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


@pytest.mark.parametrize("asked", ["lrp", "secant"])
@pytest.mark.parametrize("make", [mixed, Autocast])
def test_several_float_types_balance(make, asked):
    model = gallery(ENTRIES[0]).model
    found, expected = (explained(m, ENTRIES[0], **ASKED[asked]) for m in (make(copy.deepcopy(model)).eval(), model))
    eps = torch.finfo(torch.bfloat16).eps
    moved = float(np.abs(found.relevance).sum()) + abs(found.value)
    assert found.residual * abs(found.value) <= 8 * eps * moved
    assert np.isfinite(found.relevance).all()
    assert np.corrcoef(found.relevance, expected.relevance)[0, 1] > 0.95
