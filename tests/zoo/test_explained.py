"""What explanations of the models in the box are worth, on held-out samples; `bench.tasks` prints it for whole sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from bench.tasks import captions, digits, flips, sentences, streams
from clearhead import AttentionVisualizer
from tasks.plainly import rows_of

SHADES = [(image * 255 / 16).round().astype("uint8") for image in load_digits().images[:400:50]]
INPUTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "sentiment": (sentences(None)[:12], {}),
    "digits": ([Image.fromarray(shades).convert("RGB") for shades in SHADES], {}),
    "translate": (captions(None)[:6], {}),
    "captions": ([" ".join(text.split()[:5]) for text in captions(None)[:6]], {"generate": 12}),
}


@pytest.mark.usefixtures("minilm")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", INPUTS)
def test_every_row_of_every_model_balances(name: str, together: bool) -> None:
    """Each by itself: where a value is nearly 0, the books are only as exact as the sums that they are made of."""
    av = AttentionVisualizer.from_pretrained(f"clearhead/{name}", method="lrp")
    inputs, asking = INPUTS[name]
    found = av.explain(inputs, **asking) if together else [av.explain(each, **asking) for each in inputs]
    rows = [row for each in found for row in rows_of(each)]
    assert len(rows) >= len(inputs)
    for row in rows:
        assert row.conserves(), (row.target, row.conservation_error)
        assert row.residual <= 1e-5 or row.residual * abs(row.value) <= row.rounding_floor, (row.target, row.residual)
        assert not row.warnings
    assert np.median([row.residual for row in rows]) < 1e-6


@pytest.mark.usefixtures("minilm")
def test_words_that_counted_most_are_those_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    shares = flips(sentences(None)[:120])
    assert shares["most relevant"] > 3 * shares["random"]
    assert shares["random"] > shares["least relevant"]
    assert "predictions that flip" in capsys.readouterr().out


def test_source_and_prefix_together_are_the_score_of_each_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert streams(captions(None)[:10]) < 1e-4
    assert "10 sentences" in capsys.readouterr().out


def test_a_wrong_digit_has_a_report_against_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits(tmp_path)
    assert "image 190: class 1 against class 4" in capsys.readouterr().out
    page = (tmp_path / "digit-190.html").read_text(encoding="utf-8")
    assert "class 1 against class 4" in page
    assert "As the model saw it" in page
