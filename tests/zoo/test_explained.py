"""What explanations of the models in the box are worth, on held-out samples; `bench.tasks` prints it for whole sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.tasks import captions, digits, flips, sentences, streams


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
    assert "image 190: 1 against 4" in capsys.readouterr().out
    page = (tmp_path / "digit-190.html").read_text(encoding="utf-8")
    assert "1 against 4" in page
    assert "As the model saw it" in page
