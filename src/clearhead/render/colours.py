"""One signed, colour-blind-safe scale for every output: blue speaks for the target, orange against it.

Colours are mixed in Oklab (Ottosson 2020), where equal steps look equal, from the ground to an end colour whose
lightness still carries readable text. Blue and orange differ for all common kinds of colour blindness.
"""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[float, float, float]

LEVELS = 20  # steps of each sign where a scale must be a list, as in a style sheet

# Over a picture the same two hues, clear at 0: readable on the light and on the dark ground, as an image has one look.
HEAT_PLUS, HEAT_MINUS = "#3f86e0", "#e57a17"
COVER = 0.88  # of the picture that the strongest relevance hides


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of one ground: `plus` and `minus` end the scale, the strong ones are for bars and lines.

    `agree`, `weak` and `chance` say how far two methods agree, `fault` what is wrong.
    """

    ground: str
    ink: str
    quiet: str
    plus: str
    minus: str
    strong_plus: str
    strong_minus: str
    neutral: str
    agree: str
    weak: str
    chance: str
    fault: str


LIGHT = Palette(
    ground="#ffffff",
    ink="#1b1d21",
    quiet="#5d626b",
    plus="#6fa8ee",
    minus="#f2a154",
    strong_plus="#2f6fc4",
    strong_minus="#c8650f",
    neutral="#8a8f98",
    agree="#1f7a52",
    weak="#7d6a1c",
    chance="#75578c",
    fault="#a8321f",
)
DARK = Palette(
    ground="#14161a",
    ink="#ebeae7",
    quiet="#a1a5ad",
    plus="#2a62b3",
    minus="#a2560a",
    strong_plus="#6ba6f2",
    strong_minus="#ec9a4a",
    neutral="#7d828b",
    agree="#74c69d",
    weak="#cdbb6b",
    chance="#bfa3d6",
    fault="#f0a08f",
)


def palette(*, dark: bool = False) -> Palette:
    """The palette for a light or a dark ground."""
    return DARK if dark else LIGHT


def scale(intensity: float, *, dark: bool = False) -> str:
    """The background for an intensity in [-1, 1]: the ground at 0, blue towards 1, orange towards -1."""
    chosen = palette(dark=dark)
    end = chosen.plus if intensity >= 0 else chosen.minus
    return mixed(chosen.ground, end, min(1.0, abs(intensity)))


def strong(amount: float, *, dark: bool = False) -> str:
    """The colour of a bar or line for a signed amount."""
    chosen = palette(dark=dark)
    return chosen.strong_plus if amount >= 0 else chosen.strong_minus


def calm(state: str, *, dark: bool = False) -> str:
    """The colour of agreement: `agree`, `weak` or `chance`; anything else is quiet. None of them is a sign's."""
    chosen = palette(dark=dark)
    return {"agree": chosen.agree, "weak": chosen.weak, "chance": chosen.chance}.get(state, chosen.quiet)


def ink(background: str) -> str:
    """The text colour, of the two inks, that stands out more from a background."""
    return max((LIGHT.ink, DARK.ink), key=lambda text: contrast(text, background))


def level(intensity: float) -> int:
    """The signed step, -LEVELS to LEVELS, nearest to an intensity."""
    return round(max(-1.0, min(1.0, intensity)) * LEVELS)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2.2, relative luminance)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    """`one` at share 0, `other` at share 1, mixed in Oklab."""
    a, b = _oklab(_linear(one)), _oklab(_linear(other))
    first, second, third = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return _hex(_from_oklab((first, second, third)))


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(colour: str) -> Triple:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _decoded(red), _decoded(green), _decoded(blue)


def _decoded(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _encoded(channel: float) -> int:
    inside = max(0.0, min(1.0, channel))
    curved = inside * 12.92 if inside <= 0.0031308 else 1.055 * inside ** (1 / 2.4) - 0.055
    return round(curved * 255)


def _hex(rgb: Triple) -> str:
    return "#" + "".join(f"{_encoded(channel):02x}" for channel in rgb)


def _oklab(rgb: Triple) -> Triple:
    red, green, blue = rgb
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def _from_oklab(lab: Triple) -> Triple:
    lightness, a, b = lab
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
