"""The door, as a user meets it: tasks, targets, tensors, lists, and models in every state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearhead import AttentionVisualizer
from clearhead.errors import ClearheadError, ModelError, NonFiniteError, UnruledOperationError, UsageError

TEXT = "a gripping , beautiful film"


@pytest.fixture(scope="module")
def av(tiny_classifier: str) -> AttentionVisualizer:
    return AttentionVisualizer.from_pretrained(tiny_classifier)


class Bag(nn.Module):
    """A plain model that no library knows: embeds, mixes, scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 8)
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.embed(ids)).mean(1))


# ---- targets --------------------------------------------------------------------------------------------------------


def test_two_classes_are_explained_by_their_difference(av: AttentionVisualizer) -> None:
    found = av.explain(TEXT)
    tokenizer = av._subject._loaded.processor
    with torch.no_grad():
        logits = av.model(**tokenizer(TEXT, return_tensors="pt")).logits[0]
    best = int(logits.argmax())
    assert found.task == "text-classification"
    assert found.target.kind == "difference"
    assert found.target.index == best
    assert found.target.label == av.labels[best]
    assert found.target.contrast == av.labels[1 - best]
    assert found.value == pytest.approx(float(logits[best] - logits[1 - best]), rel=1e-5)
    assert found.conserves()


@pytest.mark.parametrize("target", ["positive", "Positive", 1, "1"])
def test_a_class_by_name_or_index(av: AttentionVisualizer, target: str | int) -> None:
    found = av.explain(TEXT, target=target)
    assert found.target.index == 1
    other = av.explain(TEXT, target="negative")
    assert other.value == pytest.approx(-found.value, rel=1e-5)
    np.testing.assert_allclose(other.relevance, -found.relevance, rtol=1e-3, atol=1e-6)


def test_a_function_as_target(av: AttentionVisualizer) -> None:
    found = av.explain(TEXT, target=lambda output: output.logits[0, 1])
    assert found.target.kind == "callable"
    assert found.conserves()


def test_three_classes_take_the_logit_unless_a_contrast_is_named() -> None:
    av = AttentionVisualizer(Bag().eval())
    ids = {"ids": torch.tensor([[3, 1, 4, 1, 5]])}
    alone = av.explain(ids, target=2)
    assert alone.target.kind == "class"
    against = av.explain(ids, target=2, contrast=0)
    assert against.target.contrast == "class 0"
    logits = Bag().eval()(ids["ids"])[0].detach()
    assert alone.value == pytest.approx(float(logits[2]), rel=1e-5)
    assert against.value == pytest.approx(float(logits[2] - logits[0]), rel=1e-5)
    assert alone.conserves()
    assert against.conserves()


def test_a_language_model_takes_the_last_position() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=30, bos_token_id=0, eos_token_id=0)
    av = AttentionVisualizer(GPT2LMHeadModel(config))
    ids = {"input_ids": torch.tensor([[3, 1, 4, 1, 5]])}
    by_index = av.explain(ids, target=7)
    by_function = av.explain(ids, target=lambda output: output.logits[0, -1, 7], preset="attnlrp")
    assert by_index.target.kind == "token"
    assert by_index.value == pytest.approx(by_function.value, rel=1e-6)
    assert [unit.text for unit in by_index.units] == list("01234")
    assert by_index.conserves()
    assert by_function.residual < 1e-5


# ---- inputs ---------------------------------------------------------------------------------------------------------


def test_a_list_gives_a_list_of_the_same_maps(av: AttentionVisualizer) -> None:
    several = av.explain([TEXT, "a bad film"])
    assert isinstance(several, list)
    for one, text in zip(several, [TEXT, "a bad film"], strict=True):
        np.testing.assert_allclose(one.relevance, av.explain(text).relevance, rtol=1e-5, atol=1e-8)


def test_a_pair_for_a_classifier_has_two_streams(av: AttentionVisualizer) -> None:
    found = av.explain((TEXT, "a bad film"))
    assert found.streams == ("text", "text_pair")
    for unit in found.units:
        if not unit.special:
            assert found.texts[unit.stream][unit.start : unit.end] == unit.text
    assert found.conserves()


def test_float_inputs_are_units_themselves() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3))
    found = AttentionVisualizer(net).explain({"input": torch.randn(1, 5)}, target=1)
    assert len(found.units) == 5
    assert found.conserves()


def test_embedded_inputs_equal_ids(av: AttentionVisualizer) -> None:
    tokenizer = av._subject._loaded.processor
    encoded = tokenizer(TEXT, return_tensors="pt")
    vectors = av.model.get_input_embeddings()(encoded.input_ids).detach()
    given = {"inputs_embeds": vectors, "attention_mask": encoded.attention_mask}
    direct, read = (av.explain(each, target=1, method="lrp") for each in (given, TEXT))
    np.testing.assert_allclose(direct.relevance, read.relevance, rtol=1e-4, atol=1e-6)


def test_a_training_model_is_explained_as_in_evaluation_and_says_so() -> None:
    model = Bag()
    ids = {"ids": torch.tensor([[3, 1, 4, 1, 5]])}
    expected = AttentionVisualizer(model.eval()).explain(ids, target=0)
    model.train()
    found = AttentionVisualizer(model).explain(ids, target=0)
    assert all(module.training for module in model.modules())
    assert any("training mode" in note for note in found.warnings)
    np.testing.assert_array_equal(found.relevance, expected.relevance)


def test_it_works_inside_no_grad_and_inference_mode(av: AttentionVisualizer) -> None:
    expected = av.explain(TEXT).relevance
    with torch.no_grad():
        np.testing.assert_array_equal(av.explain(TEXT).relevance, expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(av.explain(TEXT).relevance, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_near(tiny_classifier: str, av: AttentionVisualizer, dtype: torch.dtype) -> None:
    half = AttentionVisualizer.from_pretrained(tiny_classifier, dtype=dtype)
    for preset in ("default", "attnlrp"):
        found = half.explain(TEXT, target=1, preset=preset)
        assert np.isfinite(found.relevance).all()
        expected = av.explain(TEXT, target=1, preset=preset)
        np.testing.assert_allclose(found.relevance, expected.relevance, atol=0.2 * np.abs(expected.relevance).max())


# ---- settings -------------------------------------------------------------------------------------------------------


def test_settings_of_a_call_beat_those_of_the_door(tiny_classifier: str) -> None:
    av = AttentionVisualizer.from_pretrained(tiny_classifier, epsilon=0.5)
    assert av.explain(TEXT).recipe.settings["epsilon"] == 0.5
    assert av.explain(TEXT, epsilon=0.1).recipe.settings["epsilon"] == 0.1
    assert av.explain(TEXT, preset="attnlrp").recipe.settings["epsilon"] == 0.0


def test_strict_refuses_what_has_no_rule() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()
            self.register_buffer("weight", torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.lgamma(x) + x

    x = {"x": torch.tensor([[0.3, 0.7]])}
    metered = AttentionVisualizer(Odd()).explain(x, target=lambda y: y.sum(), method="lrp")
    (entry,) = (e for e in metered.ledger if e.cause == "unruled")
    assert entry.operation == "lgamma"
    assert entry.module == "inner"
    assert metered.residual < 1e-5
    with pytest.raises(UnruledOperationError, match=r"lgamma.*'inner'"):
        AttentionVisualizer(Odd()).explain(x, target=lambda y: y.sum(), strict=True)


# ---- what cannot be: rule, finding, next step ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "settings", "told"),
    [
        ("", {}, "at least one visible character"),
        ("  \n", {}, "at least one visible character"),
        ("film " * 40, {}, r"at most 32 tokens; this text has 42.*truncate"),
        (7, {}, "must be a text, an image"),
        (("a", "b", "c"), {}, "two inputs.*tuple of 3"),
        (TEXT, {"target": "postive"}, "Did you mean 'positive'"),
        (TEXT, {"target": 2}, "index from 0 to 1; found 2"),
        (TEXT, {"target": "positive", "contrast": "positive"}, "must differ"),
        (TEXT, {"target": lambda output: output.logits}, r"scalar tensor; found \(1, 2\)"),
        (TEXT, {"epsilon": -0.1}, "0 or larger; found -0.1"),
        (TEXT, {"rule": "epsilom"}, "Did you mean 'epsilon'"),
        (TEXT, {"epsilom": 0.1}, "Did you mean 'epsilon'"),
        (TEXT, {"method": "lrpp"}, "Did you mean 'lrp'"),
    ],
)
def test_wrong_use_is_told(av: AttentionVisualizer, given: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){told}"):
        av.explain(given, **settings)


def test_truncating_says_what_was_cut(av: AttentionVisualizer) -> None:
    found = av.explain("film " * 40 + "beautiful", truncate=True)
    assert len(found.units) == 32
    (note,) = found.warnings
    assert "from 43 to 32 tokens" in note
    assert "from character 149 on" in note


def test_texts_need_a_processor_and_tensors_their_names() -> None:
    av = AttentionVisualizer(Bag())
    with pytest.raises(UsageError, match="Without a processor"):
        av.explain("hello")
    with pytest.raises(ModelError, match="must be ids"):
        av.explain({"mask": torch.ones(1, 3)})
    with pytest.raises(ModelError, match=r"failed on this input.*unexpected keyword"):
        av.explain({"idz": torch.ones(1, 3, dtype=torch.long)})


def test_similarity_needs_two_texts_and_no_target(minilm: str) -> None:
    av = AttentionVisualizer.from_pretrained(minilm)
    with pytest.raises(UsageError, match="needs two inputs"):
        av.explain("one")
    with pytest.raises(UsageError, match="one target, a number"):
        av.explain(("one", "two"), target="positive")


def test_a_model_without_gradients_is_refused() -> None:
    class Sealed(Bag):
        @torch.no_grad()
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids)

    with pytest.raises(ModelError, match="no gradient reaches"):
        AttentionVisualizer(Sealed().eval()).explain({"ids": torch.ones(1, 3, dtype=torch.long)})


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "value"), (float("inf"), "value")])
def test_nan_names_where_it_appeared(value: float, what: str) -> None:
    model = Bag().eval()
    with torch.no_grad():
        model.mix.linear2.weight[0, 0] = value
    with pytest.raises(NonFiniteError, match=rf"(?s){what}.*'mix\.linear2'"):
        AttentionVisualizer(model).explain({"ids": torch.ones(1, 3, dtype=torch.long)})


def test_nan_in_the_relevance_alone_is_named() -> None:
    class Root(nn.Module):
        """Finite forward, infinite backward: the unruled square root of zero by another name."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.hypot(x, x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.root = Root()
            self.register_buffer("weight", torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.root(x - x)

    with pytest.raises(NonFiniteError, match=r"(?s)relevance.*hypot.*'root'"):
        AttentionVisualizer(Net(), method="lrp").explain({"x": torch.ones(1, 3)}, target=lambda y: y.sum() + 1)


# ---- folders --------------------------------------------------------------------------------------------------------


def test_folders_that_are_not_models(tmp_path: Any, tiny_classifier: str) -> None:
    import shutil

    with pytest.raises(ModelError, match="there is no folder"):
        AttentionVisualizer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"config\.json"):
        AttentionVisualizer.from_pretrained(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        AttentionVisualizer.from_pretrained(file)
    copy = shutil.copytree(tiny_classifier, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"must be safetensors.*only pytorch_model\.bin"):
        AttentionVisualizer.from_pretrained(copy)
    (copy / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="cannot be"):
        AttentionVisualizer.from_pretrained(copy)


def test_an_unknown_hub_id_offline(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        AttentionVisualizer.from_pretrained("nobody/nothing")


def test_weights_made_up_at_random_are_told(tiny_classifier: str, minilm: str) -> None:
    av = AttentionVisualizer.from_pretrained(minilm, task="text-classification")
    assert any("made up at random: classifier" in note for note in av.explain("good").warnings)


def test_unknown_words_at_the_door(tiny_classifier: str) -> None:
    for words in ({"task": "sentence-similarty"}, {"pooling": "max"}, {"preset": "defualt"}, {"nonsense": 1}):
        with pytest.raises(ClearheadError, match=r"must be one of|There is no setting"):
            AttentionVisualizer.from_pretrained(tiny_classifier, **words)
