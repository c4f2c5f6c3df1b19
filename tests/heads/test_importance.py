"""Importance is the gradient of a gate: against finite differences, against ablation, against one input at a time."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attention import plainly
from clearhead import AttentionVisualizer
from clearhead.errors import UsageError
from clearhead.headreports import HeadReport
from clearhead.heads.importance import relevance
from clearhead.subjects import Wanted
from heads.headless import READERS, fingerprint, scaled
from sight import families
from tasks.gallery import gallery

STEP = 1e-4
WIDE = 1e-2  # for models that compute their norms in float32, whatever they are loaded in
TEXTS = ["a gripping , beautiful film !", "this was not a good one", "a film", "a good film ."]


def precise(name: str) -> AttentionVisualizer:
    entry = gallery(name)
    return AttentionVisualizer(copy.deepcopy(entry.model).double(), entry.processor, task=entry.task)


def quick(
    av: AttentionVisualizer, data: object, labels: object = None, batch_size: int = 0, **options: object
) -> HeadReport:
    settings = replace(av.settings, batch_size=batch_size)
    return av._heads.report(data, labels, settings, weighted=False, relevance=False, **options)


def by_differences(av, documents, value, path, layer, head, count, step=STEP) -> float:
    """The mean absolute central difference of a value of the model's output, by a gate of one head."""
    found = []
    for given in documents:
        results = []
        for gate in (1 + step, 1 - step):
            with scaled(av.model.get_submodule(path.format(layer=layer)), head, count, gate), torch.no_grad():
                results.append(float(value(av.model(**given).logits, given)))
        found.append(abs(results[0] - results[1]) / (2 * step))
    return float(np.mean(found))


@pytest.mark.parametrize("of", ["target", "loss"])
def test_importance_of_classes_is_the_slope_of_the_gate(of):
    av = precise("text-classification/bert")
    tokenizer = gallery("text-classification/bert").processor
    documents = [dict(tokenizer(text, return_tensors="pt")) for text in TEXTS]
    labels = [1, 0, 1, 1]
    wanted = dict(zip(map(str, documents), labels, strict=True))
    with torch.no_grad():
        chosen = {str(d): int(av.model(**d).logits.argmax()) for d in documents}

    def value(logits, given):
        if of == "loss":
            return -logits.log_softmax(-1)[0, wanted[str(given)]]
        k = chosen[str(given)]
        others = [n for n in range(logits.shape[1]) if n != k]
        return logits[0, k] - logits[0, others[0]] if logits.shape[1] == 2 else logits[0, k]

    report = quick(av, TEXTS, labels if of == "loss" else None, of=of)
    for head, found in zip(report.heads, report.importance, strict=True):
        expected = by_differences(av, documents, value, READERS["bert"], head.layer, head.head, 4)
        assert found == pytest.approx(expected, rel=1e-3)


def test_importance_for_a_text_is_that_of_its_mean_token_loss():
    av = precise("causal-lm/llama-writer")
    tokenizer = gallery("causal-lm/llama-writer").processor
    texts = ["Two young people are walking", "Anna Smith lives in Berlin and works"]
    documents = [dict(tokenizer(text, return_tensors="pt")) for text in texts]
    for each in documents:
        each.pop("token_type_ids", None)

    def value(logits, given):
        own = logits[0, :-1].log_softmax(-1)
        return -own.gather(-1, given["input_ids"][0, 1:, None]).mean()

    report = quick(av, texts, of="loss")
    for head, found in zip(report.heads, report.importance, strict=True):
        expected = by_differences(av, documents, value, READERS["llama"], head.layer, head.head, 4, WIDE)
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("stream", ["encoder", "decoder", "cross"])
def test_importance_of_three_streams(stream):
    av = precise("encoder-decoder/bart")
    tokenizer = gallery("encoder-decoder/bart").processor
    sources, outputs = ["Two young people", "a ladder"], ["Zwei junge Leute", "ein Haus"]
    documents = [
        dict(families.question(av.model, s, tokenizer, continuation=t).passes[0].tensors)
        for s, t in zip(sources, outputs, strict=True)
    ]
    ends = [tokenizer(t, add_special_tokens=True).input_ids for t in outputs]
    wanted = dict(zip(map(str, documents), ends, strict=True))

    def value(logits, given):
        ids = torch.tensor(wanted[str(given)])[: logits.shape[1]]
        return -logits[0, : len(ids)].log_softmax(-1).gather(-1, ids[:, None]).mean()

    report = quick(av, sources, outputs, of="loss")
    assert report.streams == ("encoder", "decoder", "cross")
    count = sum(head.stream == stream and head.layer == 0 for head in report.heads)
    for head, found in zip(report.heads, report.importance, strict=True):
        if head.stream == stream:
            expected = by_differences(av, documents, value, READERS[stream], head.layer, head.head, count)
            assert found == pytest.approx(expected, rel=1e-3)


def test_ablation_to_first_order():
    """Shut by a hundredth, a gate changes the loss by a hundredth of its slope."""
    model = plainly.Model(layers=2, width=8, heads=2).double()
    av = AttentionVisualizer(model)
    data = [{"input_ids": torch.arange(n, n + 6).unsqueeze(0)} for n in (0, 5)]
    report = quick(av, data, of="target")
    for head, found in zip(report.heads, report.importance, strict=True):
        changes = []
        for each in data:
            other = plainly.Model(layers=2, width=8, heads=2).double()
            rows = slice(4 * head.head, 4 * head.head + 4)
            with torch.no_grad():
                whole = model(**each)[0]
                other.blocks[head.layer].maps["o"][rows] *= 0.999
                less = other(**each)[0]
                k = int(whole.argmax())
            changes.append(abs(float(whole[k] - less[k])) / 1e-3)
        assert found == pytest.approx(np.mean(changes), rel=2e-2, abs=1e-6)


@pytest.mark.parametrize("absolute", ["example", "token"])
@pytest.mark.parametrize(
    "name", ["text-classification/bert", "text-classification/deberta", "causal-lm/gpt2", "image-classification/vit"]
)
def test_a_batch_is_its_members(name, absolute):
    av, data = precise(name), [each for each in gallery(name).inputs if not isinstance(each, tuple)]
    before = fingerprint(av.model)
    together = quick(av, data, absolute=absolute, batch_size=8)
    alone = quick(av, data, absolute=absolute, batch_size=1)
    np.testing.assert_allclose(together.importance, alone.importance, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(together.error, alone.error, rtol=1e-6, atol=1e-12)
    assert fingerprint(av.model) == before
    assert (alone.importance > 0).all()


def test_per_token_is_the_products_of_outputs_and_their_gradients():
    model = plainly.Model(layers=2, width=8, heads=2).double()
    data = [{"input_ids": torch.arange(n, n + 6).unsqueeze(0)} for n in (0, 5)]
    report = quick(AttentionVisualizer(model), data, absolute="token")
    expected = []
    for each in data:
        kept = []

        def note(_, args, kept=kept):
            args[0].retain_grad()
            kept.append(args[0])

        outputs = Outputs(model, note)
        scores = outputs(each["input_ids"])[0]
        scores.max().backward()
        expected.append(
            [(x * x.grad).unflatten(-1, (2, -1))[0, :, h].sum(-1).abs().sum().item() for x in kept for h in range(2)]
        )
    np.testing.assert_allclose(report.importance, np.mean(expected, 0), rtol=1e-9)


class Outputs(nn.Module):
    """The plain model again, which tells what the heads of each block give out."""

    def __init__(self, model: nn.Module, note: object) -> None:
        super().__init__()
        self.model, self.note = model, note

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.model.words(ids)
        for block in self.model.blocks:
            split = lambda t, h=block.heads: t.unflatten(-1, (h, -1)).transpose(1, 2)  # noqa: E731
            q, k, v = (split(x @ block.maps[n]) for n in "qkv")
            mixed = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
            self.note(block, (mixed,))
            x = x + mixed @ block.maps["o"]
            x = x + torch.tanh(x @ block.maps["m"])
        return x[:, 0] @ self.model.head


def test_groups_are_summed_before_the_absolute_value():
    av = precise("causal-lm/llama-writer")
    tokenizer = gallery("causal-lm/llama-writer").processor
    texts = ["Two young people are walking", "Anna Smith lives in Berlin"]
    report = quick(av, texts, of="loss")
    assert [(g.layer, g.group) for g in report.groups] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    documents = [dict(tokenizer(text, return_tensors="pt")) for text in texts]

    def loss(given):
        given.pop("token_type_ids", None)
        own = av.model(**given).logits[0, :-1].log_softmax(-1)
        return float(-own.gather(-1, given["input_ids"][0, 1:, None]).mean())

    for group in report.groups:
        module = av.model.get_submodule(READERS["llama"].format(layer=group.layer))
        slopes = []
        for given in documents:
            ends = []
            for gate in (1 + WIDE, 1 - WIDE):
                with scaled(module, group.group, 2, gate), torch.no_grad():  # two heads side by side are one wide one
                    ends.append(loss(given))
            slopes.append(abs(ends[0] - ends[1]) / (2 * WIDE))
        assert group.importance == pytest.approx(np.mean(slopes), rel=1e-3)


def test_normalised_layers_have_length_one():
    av = precise("text-classification/bert")
    plain, report = quick(av, TEXTS), quick(av, TEXTS, normalise=True)
    for layer in range(2):
        own = [n for n, head in enumerate(report.heads) if head.layer == layer]
        assert np.linalg.norm(report.importance[own]) == pytest.approx(1)
        factor = np.linalg.norm(plain.importance[own])
        np.testing.assert_allclose(report.error[own], plain.error[own] / factor)


# ---- weights times their gradients, relevance ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text-classification/bert", "text-classification/deberta"])
def test_weighted_is_the_mean_of_positive_products(name):
    av = precise(name)
    tokenizer = gallery(name).processor
    report = av.heads(TEXTS[:2])
    model = copy.deepcopy(av.model)
    model.set_attn_implementation("eager") if "deberta" not in name else None
    expected = []
    for text in TEXTS[:2]:
        out = model(**tokenizer(text, return_tensors="pt"), output_attentions=True)
        for each in out.attentions:
            each.retain_grad()
        (out.logits[0].max() - (out.logits[0].min() if out.logits.shape[1] == 2 else 0)).backward()
        expected.append(
            np.concatenate([(a * a.grad).clamp(min=0).mean((0, 2, 3)).detach().numpy() for a in out.attentions])
        )
    np.testing.assert_allclose(report.weighted, np.mean(expected, 0), rtol=1e-5)
    ranked = report.top(3)
    assert [r.head for r in ranked] == [report.heads[n] for n in np.argsort(-report.weighted)[:3]]
    assert ranked[0].share == pytest.approx(report.weighted.max() / report.weighted.sum())


class Residual(nn.Module):
    """A block whose paths have names: what the heads give, what is carried past them, what both make."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.words = nn.Embedding(20, 8)
        self.maps = nn.ParameterDict(
            {
                n: nn.Parameter(torch.randn(8, 8, generator=draw) / 8**0.5)
                for n in ("q", "k", "v", "o", "q2", "k2", "v2", "o2")
            }
        )
        self.head = nn.Parameter(torch.randn(8, 3, generator=draw))
        self.fused = fused
        self.seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def _told(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = x.view_as(x)
        if x.requires_grad:
            x.register_hook(lambda g: self.seen.append((name, x.detach(), g)))
        return x

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.words(input_ids)
        for n in ("", "2"):
            split = lambda t: t.unflatten(-1, (2, -1)).transpose(1, 2)  # noqa: E731
            q, k, v = (split(x @ self.maps[f"{m}{n}"]) for m in "qkv")
            if self.fused:
                mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            else:
                mixed = (q @ k.mT / 2).softmax(-1) @ v
            given = mixed.transpose(1, 2).flatten(2) @ self.maps[f"o{n}"]
            x = self._told(f"layer{n}", self._told(f"past{n}", x) + given)
        return x[:, 0] @ self.head


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("preset", ["default", "attnlrp"])
def test_relevance_of_heads_and_of_the_residual_path_add_up_to_the_layers(preset, fused):
    model = Residual(fused).double()
    settings = {"preset": preset, "epsilon": 0.0, "rule": "0"}
    av = AttentionVisualizer(model, **settings)
    given = {"input_ids": torch.arange(6).unsqueeze(0)}
    question = av._subject.question(given, Wanted(), av.settings)
    catalogue = av._heads.learn(question)
    model.seen.clear()
    found = relevance(catalogue, question, av.settings)
    total = {name: float((x * g).sum()) for name, x, g in model.seen}
    for layer, n in enumerate(("", "2")):
        heads = found[2 * layer : 2 * layer + 2]
        assert np.abs(heads).min() > 1e-6
        assert heads.sum() + total[f"past{n}"] == pytest.approx(total[f"layer{n}"], rel=1e-9)


# ---- bad input -----------------------------------------------------------------------------------------------------


NO_LABELS = [0.5, math.nan, math.inf, [1], {}]


def test_bad_input(tmp_path):
    av = precise("text-classification/bert")
    cases = [
        ((TEXTS,), {"of": "loss"}, "needs a label"),
        ((TEXTS[:1],), {}, "2 documents at least"),
        ((TEXTS, [1]), {}, "one label"),
        ((TEXTS,), {"of": "los"}, "Did you mean 'loss'"),
        ((TEXTS,), {"absolute": "word"}, "`absolute` must be one of"),
        ((TEXTS, [0, 1, "x", 1]), {"of": "loss"}, "Input 3 of 4: `label` must be one of"),
        ((TEXTS, [0, 1, 1, 2]), {"of": "loss"}, "Input 4 of 4: `label` must be an index from 0 to 1"),
        ((TEXTS, [0, None, 1, 1]), {"of": "loss"}, "Input 2 of 4: .* needs a label"),
        *(((TEXTS, [0, 1, wrong, 1]), {"of": "loss"}, "Input 3 of 4: A label must be the name") for wrong in NO_LABELS),
        ((tmp_path / "none.txt",), {}, "can be read"),
    ]
    for args, options, message in cases:
        with pytest.raises(UsageError, match=message):
            quick(av, *args, **options)
    report = quick(av, TEXTS)
    for k in (0, 9, "x"):
        with pytest.raises(UsageError, match="from 1 to the number of heads, 8"):
            report.top(k)
    with pytest.raises(UsageError, match="one relevance per head"):
        HeadReport.from_dict({**report.to_dict(), "relevance": [1.0]})


def test_files_and_reports_come_back(tmp_path):
    av = precise("text-classification/bert")
    (tmp_path / "a.tsv").write_text("".join(f"{text}\t{n % 2}\n" for n, text in enumerate(TEXTS)), encoding="utf-8")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    report = quick(av, tmp_path / "a.tsv", of="loss")
    np.testing.assert_array_equal(report.importance, quick(av, TEXTS, [0, 1, 0, 1], of="loss").importance)
    assert quick(av, tmp_path / "a.txt").documents == 4
    again = HeadReport.from_dict(report.to_dict())
    assert again.to_dict() == report.to_dict()
    assert again.heads == report.heads


def test_labels_come_in_many_kinds():
    av = precise("text-classification/bert")
    expected = quick(av, TEXTS, [1, 0, 1, 1], of="loss").importance
    for labels in (
        ["positive", "negative", "Positive", "1"],
        np.array([1, 0, 1, 1]),
        np.array([1.0, 0.0, 1.0, 1.0]),
        torch.tensor([1, 0, 1, 1]),
    ):
        np.testing.assert_array_equal(quick(av, TEXTS, labels, of="loss").importance, expected)
