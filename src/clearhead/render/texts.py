"""Texts and numbers as they are shown: nothing that can steer a terminal, hide, or reorder what stands beside it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NAMED = {"\n": "↵", "\t": "⇥"}
_JOINERS = "\u200c\u200d"  # part of words in Persian and Indic scripts, and of emoji
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_CONTINUES = "##"  # a piece of a word, not its beginning
_BEGINS = "Ġ▁"  # the marks some tokenizers write for the space before a word
_LINE = "Ċ"  # and for the end of a line

SMALLEST, LARGEST = 1e-6, 1e9  # beyond these, numbers are written with an exponent
DIGITS = 4  # significant digits of the largest number


def visible(text: str) -> str:
    """The text on one line with every invisible or steering character written out, and never empty."""
    if text.isascii() and text.isprintable() and text.strip():
        return text
    shown = "".join(_shown(letter, text) for letter in text)
    if not shown:
        return "∅"
    return shown if shown.strip() else "␣" * len(shown)


def _shown(letter: str, text: str) -> str:
    if letter in _NAMED:
        return _NAMED[letter]
    if unicodedata.category(letter) not in _HIDDEN or (letter in _JOINERS and len(text) > 1):
        return letter
    return f"‹{ord(letter):02X}›"


def token(text: str) -> str:
    """A token's own text: the marks for spaces and lines that tokenizers write are left out or made visible."""
    bare = text.lstrip(_BEGINS) or text
    return visible((bare.strip(" ") or bare).replace(_LINE, "\n"))


def piece(text: str) -> str:
    """A token as it reads when it continues the word before it."""
    continued = text.startswith(_CONTINUES) and len(text) > len(_CONTINUES)
    return token(text[len(_CONTINUES) :] if continued else text)


def continues(text: str) -> bool:
    """True for a token that is marked as a continuation of the word before it."""
    return text.startswith(_CONTINUES) and len(text) > len(_CONTINUES)


def begins(text: str) -> bool:
    """True for a token that is marked as the beginning of a word."""
    return text[:1] in _BEGINS or text[:1].isspace()


def shortened(text: str, width: int, cut: str = "…") -> str:
    """The text, cut in its middle to `width` characters: paths tell most at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 3
    return f"{text[:head]}{cut}{text[len(text) - (width - 1 - head) :]}"


@dataclass(frozen=True)
class Amount:
    """A number and how it is shown."""

    value: float
    shown: str

    @property
    def exact(self) -> str:
        """The number with as many digits as it needs to be read back as the same number."""
        return repr(self.value)

    @property
    def unsigned(self) -> Amount:
        """The same without a plus, for totals."""
        return Amount(self.value, self.shown.removeprefix("+"))

    @property
    def as_shown(self) -> float:
        """The number that is read from what is shown."""
        return float(self.shown)


@dataclass(frozen=True)
class Digits:
    """How the numbers of one map are written: a fixed number of decimals, or None for exponents.

    Numbers that are never negative are not `signed`.
    """

    decimals: int | None
    signed: bool = True

    @classmethod
    def of(cls, amounts: Sequence[float]) -> Digits:
        """As many decimals as give the largest of the amounts four digits, and at least three."""
        largest = max((abs(a) for a in amounts if math.isfinite(a)), default=0.0)
        if largest and not SMALLEST <= largest < LARGEST:
            return cls(None)
        return cls(max(3, DIGITS - 1 - math.floor(math.log10(largest)))) if largest else cls(3)

    def amount(self, value: float) -> Amount:
        """The number with its sign; a zero has none."""
        sign = "+" if self.signed else ""
        if self.decimals is None:
            return Amount(value, f"{value:{sign}.{DIGITS - 1}e}")
        text = f"{value:{sign}.{self.decimals}f}"
        zero = math.isfinite(value) and float(text) == 0
        return Amount(value, f"{0:.{self.decimals}f}" if zero else text)

    def remainder(self, value: float, shown: Amount | None = None) -> Amount:
        """A number that may be nearly nothing: with an exponent where the decimals would hide it."""
        usual = shown or self.amount(value)
        hidden = self.decimals is not None and value != 0 and math.isfinite(value) and usual.as_shown == 0
        return Amount(value, f"{value:+.1e}") if hidden else usual

    def sum(self, amounts: Iterable[Amount]) -> Amount:
        """The sum of some amounts."""
        return self.amount(math.fsum(each.value for each in amounts))

    def footed(self, values: Sequence[float], total: float) -> list[Amount]:
        """Numbers that add up to the total as they are shown, each rounded down or up (largest remainders up).

        `values` must add up to `total` but for rounding.
        """
        if self.decimals is None or not all(map(math.isfinite, [*values, total])):
            return [self.amount(value) for value in values]
        exact = [value * 10**self.decimals for value in values]
        whole = [math.floor(each) for each in exact]
        missing = round(total * 10**self.decimals) - sum(whole)
        by_remainder = sorted(range(len(values)), key=lambda i: whole[i] - exact[i])
        for i in by_remainder[: max(0, missing)]:
            whole[i] += 1
        shown = [self.amount(each / 10**self.decimals).shown for each in whole]
        return [Amount(value, text) for value, text in zip(values, shown, strict=True)]


def relative(value: float) -> str:
    """A relative error, short: 8.2e-08, 0, or the sign for infinity."""
    if math.isinf(value):
        return "∞"
    return "0" if value == 0 else f"{value:.1e}"


def ratio(value: float) -> str:
    """A ratio with two or three digits."""
    return "∞" if math.isinf(value) else f"{value:.2f}" if value < 100 else f"{value:.3g}"
