"""Texts cannot steer what shows them; numbers add up as they are shown."""

from __future__ import annotations

import math
import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.render.texts import Amount, Digits, piece, ratio, relative, shortened, token, visible
from render.examples import ADVERSARIAL

JOINERS = "\u200c\u200d"


def harmless(text):
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return all(unicodedata.category(letter) not in hidden or letter in JOINERS for letter in text)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_visible_harmless_and_writable(text):
    for shown in (visible(text), token(text), piece(text)):
        assert harmless(shown)
        assert shown.strip()
        shown.encode("utf-8")


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_adversarial_texts_are_harmless(text):
    assert harmless(visible(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n", "↵"),
        ("a\tb", "a⇥b"),
        (" ", "␣"),
        ("   ", "␣␣␣"),
        ("", "∅"),
        ("\x1b[31m", "‹1B›[31m"),
        ("\ud800", "‹D800›"),
        ("\u202e", "‹202E›"),
        ("\u200d", "‹200D›"),
        ("👩\u200d👧", "👩\u200d👧"),
        ("e\u0301", "e\u0301"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "own", "continuing"),
    [
        ("film", "film", "film"),
        ("##ing", "##ing", "ing"),
        ("##", "##", "##"),
        ("Ġfilm", "film", "film"),
        ("▁film", "film", "film"),
        ("▁", "▁", "▁"),
        (" film", "film", "film"),
        ("Ċ", "↵", "↵"),
    ],
)
def test_tokens(text, own, continuing):
    assert token(text) == own
    assert piece(text) == continuing


@pytest.mark.parametrize("width", [1, 2, 3, 5, 9, 10, 50])
def test_shortened_fits_and_keeps_both_ends(width):
    text = "encoder.layer.11.output"
    short = shortened(text, width)
    assert len(short) <= max(2, width)
    assert short == text or "…" in short
    if 9 <= width < len(text):
        assert text.startswith(short.split("…")[0])
        assert text.endswith(short.split("…")[1])


sizes = st.floats(-1e5, 1e5, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-5 else x)


@given(st.lists(sizes, min_size=1, max_size=12))
def test_footed_numbers_add_up_as_shown(values):
    total = math.fsum(values)
    digits = Digits.of([*values, total])
    shown = digits.footed(values, total)
    if digits.decimals is not None:
        target = Decimal(round(total * 10**digits.decimals)).scaleb(-digits.decimals)
        assert sum(Decimal(each.shown) for each in shown) == target
        for each, value in zip(shown, values, strict=True):
            assert abs(each.as_shown - value) <= 1.001 * 10.0**-digits.decimals


@given(st.floats(1e-5, 1e8))
def test_the_largest_number_has_at_least_four_digits(largest):
    digits = Digits.of([largest, largest / 1000])
    shown = digits.amount(largest).shown
    assert len(shown.strip("+").replace(".", "").lstrip("0")) >= 4
    assert float(shown) == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize("largest", [1e-9, 3e12])
def test_extreme_numbers_have_exponents(largest):
    digits = Digits.of([largest])
    assert "e" in digits.amount(largest).shown
    assert [a.shown for a in digits.footed([largest], largest)] == [digits.amount(largest).shown]


def test_zero_has_no_sign_and_a_remainder_is_never_hidden():
    digits = Digits(3)
    assert digits.amount(-0.0).shown == digits.amount(1e-9).shown == "0.000"
    assert digits.remainder(-4e-8).shown == "-4.0e-08"
    assert digits.remainder(0.0).shown == "0.000"
    assert digits.remainder(0.5).shown == "+0.500"
    assert digits.amount(float("nan")).shown == "+nan"
    assert digits.footed([math.inf, 1.0], math.inf)[0].shown == "+inf"


def test_exact_numbers_are_read_back():
    assert float(Amount(0.1 + 0.2, "+0.300").exact) == 0.1 + 0.2


def test_figures_are_short():
    assert [relative(0), relative(8.23e-8), relative(math.inf)] == ["0", "8.2e-08", "∞"]
    assert [ratio(1.2345), ratio(1234.5), ratio(math.inf)] == ["1.23", "1.23e+03", "∞"]
