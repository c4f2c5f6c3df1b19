"""The books of a real model on real sentences: what the project promises first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionVisualizer, RelevanceMap

PAIRS = 200


@pytest.fixture(scope="module")
def pairs(sst2: list[str]) -> list[tuple[str, str]]:
    """Each sentence with its neighbour."""
    return [(sst2[i], sst2[(i + 1) % PAIRS]) for i in range(PAIRS)]


@pytest.fixture(scope="module")
def av(minilm: str) -> AttentionVisualizer:
    """The real model, as it loads by default: float32, on SDPA."""
    return AttentionVisualizer.from_pretrained(minilm, method="lrp")


def test_float32_conserves_and_balances_on_every_pair(av: AttentionVisualizer, pairs: list[tuple[str, str]]) -> None:
    maps = av.explain(pairs)
    assert len(maps) == PAIRS
    for one in maps:
        assert one.conserves(1e-4), (one.conservation_error, one.texts)
        assert one.residual < 1e-5
        assert not one.warnings


def test_float64_conserves_to_ten_digits_on_every_pair(minilm: str, pairs: list[tuple[str, str]]) -> None:
    wide = AttentionVisualizer.from_pretrained(minilm, dtype=torch.float64, method="lrp")
    maps = wide.explain(pairs)
    assert max(one.conservation_error for one in maps) < 1e-10
    assert max(one.residual for one in maps) < 1e-10
    assert {one.recipe.dtype for one in maps} == {"float64"}


def test_published_attnlrp_leaks_through_softmax_and_says_so(
    av: AttentionVisualizer, pairs: list[tuple[str, str]]
) -> None:
    maps = av.explain(pairs[:40], preset="attnlrp")
    for one in maps:
        assert one.residual < 1e-5
        softmax = sum(entry.relevance for entry in one.ledger if entry.cause == "softmax")
        assert softmax != 0
        assert not any(entry.returned for entry in one.ledger)
    assert np.median([one.conservation_error for one in maps]) > 0.05
    told = [one for one in maps if not one.conserves()]
    assert told
    assert all("Largest leaks" in one.warnings[0] for one in told)
    assert sum("softmax" in one.warnings[0] for one in told) > len(told) / 2


@pytest.mark.parametrize(
    "settings",
    [{}, {"preset": "attnlrp"}, {"preset": "cp-lrp"}, {"attention": "attnlrp"}],
    ids=["default", "attnlrp", "cp-lrp", "attnlrp returned"],
)
def test_eager_and_sdpa_give_the_same_relevance(
    minilm: str, av: AttentionVisualizer, pairs: list[tuple[str, str]], settings: dict[str, Any]
) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(minilm, attn_implementation="eager")
    eager = AttentionVisualizer(model, AutoTokenizer.from_pretrained(minilm), method="lrp")
    assert av.model.config._attn_implementation == "sdpa"
    for pair in pairs[:10]:
        one, other = av.explain(pair, **settings), eager.explain(pair, **settings)
        scale = np.abs(one.relevance).max()
        np.testing.assert_allclose(one.relevance, other.relevance, rtol=1e-4, atol=1e-4 * scale)


def test_each_side_of_a_similarity_holds_half(av: AttentionVisualizer) -> None:
    found = av.explain(("A man eats bread.", "Someone is having a sandwich at home."))
    sides = {
        s: sum(r for u, r in zip(found.units, found.relevance, strict=True) if u.stream == s) for s in found.streams
    }
    assert sides.keys() == {"text", "text_pair"}
    assert sides["text"] == pytest.approx(found.value / 2, rel=1e-5)
    assert sides["text_pair"] == pytest.approx(found.value / 2, rel=1e-5)


def test_one_side_is_explained_with_the_other_held_fixed(av: AttentionVisualizer) -> None:
    """The second way: the other text's vector as a plain constant in a target function, and all goes to one side."""
    text, other = "A man eats bread.", "Someone is having a sandwich at home."
    whole = av.explain((text, other))
    tokenizer = av._subject._loaded.processor
    with torch.no_grad():
        states = av.model(**tokenizer(other, return_tensors="pt")).last_hidden_state
        fixed = torch.nn.functional.normalize(states[0].mean(0), dim=0)
    alone = av.explain(
        dict(tokenizer(text, return_tensors="pt")),
        target=lambda output: torch.nn.functional.normalize(output.last_hidden_state[0].mean(0), dim=0) @ fixed,
    )
    mine = [r for u, r in zip(whole.units, whole.relevance, strict=True) if u.stream == "text"]
    np.testing.assert_allclose(2 * np.array(mine), alone.relevance, rtol=1e-4, atol=1e-6)
    assert alone.value == pytest.approx(whole.value, rel=1e-6)


# ---- the model is left as it was found ------------------------------------------------------------------------------


def _state(model: torch.nn.Module) -> dict[str, Any]:
    """Everything an explanation might disturb, byte for byte."""
    return {
        "weights": {n: t.detach().cpu().numpy().tobytes() for n, t in model.state_dict().items()},
        "versions": {n: t._version for n, t in model.named_parameters()},
        "config": model.config.to_dict(),
        "asks": {n: p.requires_grad for n, p in model.named_parameters()},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()},
        "training": {n: m.training for n, m in model.named_modules()},
        "hooks": {
            n: [len(getattr(m, kind)) for kind in vars(m) if kind.endswith("_hooks") and kind.startswith("_")]
            for n, m in model.named_modules()
        },
        "attributes": {n: sorted(vars(m)) for n, m in model.named_modules()},
        "rng": torch.get_rng_state().numpy().tobytes(),
        "modes": torch.overrides._get_current_function_mode_stack(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("settings", [{}, {"preset": "attnlrp"}, {"attention": "attnlrp"}])
def test_the_model_is_left_as_found(av: AttentionVisualizer, settings: dict[str, Any]) -> None:
    before = _state(av.model)
    assert all(before["asks"].values())  # a freshly loaded model asks for gradients everywhere
    av.explain(("good", "bad"), **settings)
    assert _state(av.model) == before


@pytest.fixture
def broken(av: AttentionVisualizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An exception in the middle of the forward pass."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(type(av.model.encoder.layer[3].output), "forward", fail)
    return


@pytest.mark.usefixtures("broken")
def test_the_model_is_left_as_found_after_an_exception(av: AttentionVisualizer) -> None:
    av.model.train()
    try:
        before = _state(av.model)
        with pytest.raises(Exception, match="planted"):
            av.explain(("good", "bad"))
        assert _state(av.model) == before
    finally:
        av.model.eval()


def test_a_second_thread_sees_nothing(minilm: str, av: AttentionVisualizer) -> None:
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(minilm)("a gripping , beautiful film", return_tensors="pt")

    def plain() -> torch.Tensor:
        with torch.no_grad():
            return av.model(**inputs).last_hidden_state

    reference = plain()
    stop, outputs = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            outputs.append(plain())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(15):
            av.explain(("a gripping , beautiful film", "good"))
    finally:
        stop.set()
        thread.join()
    assert len(outputs) > 3
    assert all(torch.equal(output, reference) for output in outputs)


def test_a_planted_leak_is_found_and_named(av: AttentionVisualizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One linear layer's rule loses a thousandth: the residual shows it, and the warning names the place."""
    from clearhead.relevance import run as runs
    from clearhead.relevance.meter import Scale
    from clearhead.relevance.table import ROWS

    honest = ROWS["layer_norm"]

    def lossy(run: runs.Run, call: runs.Call) -> torch.Tensor:
        result = honest.apply(run, call)
        return Scale.apply(result, 0.999) if run.tape.module() == "encoder.layer.4.output.LayerNorm" else result

    monkeypatch.setitem(ROWS, "layer_norm", runs.Row(lossy, "lossy"))
    found = av.explain(("a gripping , beautiful film", "an ugly one"))
    assert 5e-4 < found.residual < 2e-3
    (note,) = (w for w in found.warnings if "do not balance" in w)
    assert "layer_norm" in note
    assert "encoder.layer.4.output.LayerNorm" in note


def test_a_map_comes_back_from_json(av: AttentionVisualizer, tmp_path: Any) -> None:
    found = av.explain(("good film", "bad film"))
    back = RelevanceMap.load(found.save(tmp_path / "map.json"))
    assert back.to_dict() == found.to_dict()
    assert back.relevance.tobytes() == found.relevance.tobytes()
