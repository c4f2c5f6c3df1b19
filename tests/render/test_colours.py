"""The scale is readable everywhere, tells the signs apart for every kind of eye, and grows evenly."""

from __future__ import annotations

import colorsys

import pytest

from clearhead.render import colours

STEPS = [n / 200 for n in range(-200, 201)]


def luminance(colour):
    """Relative luminance written out from WCAG 2.2, by exponent 2.4 throughout but for the linear toe."""
    parts = []
    for at in (1, 3, 5):
        c = int(colour[at : at + 2], 16) / 255
        parts.append(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def ratio(one, other):
    a, b = luminance(one), luminance(other)
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_the_whole_scale_meets_aa(dark):
    for intensity in STEPS:
        ground = colours.scale(intensity, dark=dark)
        assert ratio(colours.ink(ground), ground) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_ink_and_quiet_text_meet_aa_and_bars_three_to_one(dark):
    look = colours.palette(dark=dark)
    assert ratio(look.ink, look.ground) >= 4.5
    assert ratio(look.quiet, look.ground) >= 4.5
    for bar in (look.strong_plus, look.strong_minus, look.neutral, colours.strong(1, dark=dark)):
        assert ratio(bar, look.ground) >= 3


@pytest.mark.parametrize("dark", [False, True])
def test_the_scale_begins_at_the_ground_and_moves_away_from_it(dark):
    ground = colours.palette(dark=dark).ground
    assert colours.scale(0, dark=dark) == ground
    for sign in (1, -1):
        away = [ratio(colours.scale(sign * n / 20, dark=dark), ground) for n in range(21)]
        assert away == sorted(away)
        assert away[-1] > 1.9


@pytest.mark.parametrize("dark", [False, True])
def test_plus_is_blue_and_minus_is_orange(dark):
    def hue(colour):
        return 360 * colorsys.rgb_to_hsv(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0]

    # Nearer to the ground a hue is mostly the ground's own.
    for n in range(4, 21):
        assert 195 <= hue(colours.scale(n / 20, dark=dark)) <= 230
        assert 15 <= hue(colours.scale(-n / 20, dark=dark)) <= 45


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLIND = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("dark", [False, True])
def test_signs_differ_for_colour_blind_eyes(kind, dark):
    def seen(colour):
        linear = [((int(colour[i : i + 2], 16) / 255 + 0.055) / 1.055) ** 2.4 for i in (1, 3, 5)]
        mixed = [max(0.0, sum(w * c for w, c in zip(row, linear, strict=True))) for row in BLIND[kind]]
        return [255 * min(1.0, c) ** (1 / 2.2) for c in mixed]

    for n in (10, 20):
        pair = zip(seen(colours.scale(n / 20, dark=dark)), seen(colours.scale(-n / 20, dark=dark)), strict=True)
        assert sum((a - b) ** 2 for a, b in pair) ** 0.5 > 30


def test_contrast_has_its_known_ends():
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colours.contrast("#777777", "#777777") == pytest.approx(1)
    assert colours.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_mixing_ends_at_the_colours_mixed():
    assert colours.mixed("#123456", "#fedcba", 0) == "#123456"
    assert colours.mixed("#123456", "#fedcba", 1) == "#fedcba"


@pytest.mark.parametrize(("intensity", "step"), [(0, 0), (1, 20), (-1, -20), (7, 20), (0.024, 0), (-0.026, -1)])
def test_levels(intensity, step):
    assert colours.level(intensity) == step
