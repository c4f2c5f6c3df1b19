"""Maps made by hand, each for one thing a drawing can get wrong."""

from __future__ import annotations

import random

from clearhead.maps import LedgerEntry, Recipe, RelevanceMap, Target
from clearhead.units import Unit

SETTINGS = {
    "method": "lrp",
    "preset": "default",
    "rule": "epsilon",
    "epsilon": 0.01,
    "threshold": 1e-4,
    "strict": False,
}
VERSIONS = {"python": "3.11.7", "clearhead": "0.1.0", "torch": "2.13.0", "transformers": "5.24.0"}
RECIPE = Recipe(settings=SETTINGS, versions=VERSIONS, model_fingerprint="19fa366d42ec0083")

BREAKOUT = "</script><img src=x onerror=alert(1)>"
ADVERSARIAL = [
    BREAKOUT,
    "[bold red]",
    "[/]",
    "{{ 7*7 }}",
    "{% raw %}",
    "a&b<c>\"d'",
    "\x1b[31mred\x1b[0m",
    "\n",
    "\t\r",
    " ",
    "",
    "\u202eevil",
    "\u2028",
    "\ud800",
    "$x^2$",
    "$\\frac{",
    "%s_%d",
    "中文字",
    "👩\u200d👩\u200d👧",
    "שלום",
    "e\u0301",
    "x" * 120,
    "--><!--",
    "javascript:alert(1)",
    "`${1}`",
    "\\x1b",
    "\x00",
    "\x9b31m",
]


def made(words, relevance, *, value=None, special=(), **changes):
    """A map of one stream; the value is the sum unless it is given."""
    units = tuple(Unit(index=i, text=word, special=word in special) for i, word in enumerate(words))
    fields = {
        "method": "lrp",
        "model": "example/movie-reviews-small",
        "task": "text-classification",
        "target": Target(kind="class", label="positive", index=1, contrast="negative"),
        "recipe": RECIPE,
        "value": sum(relevance) if value is None else value,
    }
    return RelevanceMap(units=units, relevance=relevance, **{**fields, **changes})


def spanned(text, pieces, stream="input", first=0):
    """Units with offsets found in the text, in order, between special tokens."""
    units, at = [Unit(index=first, text="[CLS]", stream=stream, special=True, start=0, end=0)], 0
    for word, each in enumerate(pieces):
        start = text.index(each, at)
        at = start + len(each)
        units.append(Unit(index=first + 1 + word, text=each, stream=stream, start=start, end=at, word=word))
    return (*units, Unit(index=first + len(units), text="[SEP]", stream=stream, special=True, start=0, end=0))


def returned_leaks(scale=1.0):
    """A ledger as a small encoder leaves it when everything is handed back."""
    draw = random.Random(3)
    kinds = (("norm bias", "LayerNorm", "layer_norm"), ("bias", "dense", "linear"), ("epsilon", "dense", "linear"))
    return tuple(
        LedgerEntry(
            cause=cause,
            module=f"encoder.layer.{layer}.attention.output.{module}",
            operation=operation,
            relevance=scale * draw.gauss(0.01, 0.02),
            returned=True,
        )
        for layer in range(6)
        for cause, module, operation in kinds
    )


def review():
    """A movie review of 15 tokens."""
    text = "A gripping, beautiful film, if not quite as moving as the book."
    pieces = "A grip ping , beautiful film , if not quite as moving as the book .".split()
    units = spanned(text, pieces)
    relevance = [
        0.031, 0.052, 0.912, 0.304, 0.021, 1.204, 0.418, -0.011, -0.322, -0.871, -0.143, 0.041, 0.388, 0.012, 0.006,
        0.081, 0.022, 0.062,
    ]  # fmt: skip
    return RelevanceMap(
        method="lrp",
        model="example/movie-reviews-small",
        task="text-classification",
        target=Target(kind="class", label="positive", index=1, contrast="negative"),
        value=sum(relevance) + 4e-7,
        units=units,
        relevance=relevance,
        texts={"input": text},
        ledger=returned_leaks(),
        recipe=RECIPE,
    )


def pair():
    """Two sentences and their similarity."""
    first, second = "She sat on the bank and watched the river.", "She sat in the bank and waited for a loan."
    units = spanned(first, "She sat on the bank and watched the river .".split(), "text")
    units += spanned(second, "She sat in the bank and waited for a loan .".split(), "text_pair", len(units))
    relevance = [
        0.005, 0.0707, 0.0419, 0.0041, 0.011, 0.0951, 0.0103, 0.0228, 0.0102, 0.0377, 0.0065, 0.0068,
        0.0036, 0.0743, 0.0388, -0.0078, 0.0124, 0.0722, 0.0114, 0.0316, 0.0036, -0.0065, 0.0456, 0.0072, 0.007,
    ]  # fmt: skip
    return RelevanceMap(
        method="lrp",
        model="sentence-encoder-l6",
        task="sentence-similarity",
        target=Target(kind="similarity", label="cosine similarity"),
        value=sum(relevance),
        units=units,
        relevance=relevance,
        texts={"text": first, "text_pair": second},
        ledger=returned_leaks(0.1),
        recipe=RECIPE,
    )


def long(count=120):
    """Many tokens of both signs."""
    draw = random.Random(7)
    vocabulary = (
        "the film is a slow but rewarding study of grief that never quite finds its feet until the last act when "
        "everything falls into place and the quiet performances suddenly make sense"
    ).split()
    words = ["[CLS]", *(draw.choice(vocabulary) for _ in range(count - 2)), "[SEP]"]
    return made(words, [draw.gauss(0.02, 0.1) ** 3 * 80 for _ in words], special=("[CLS]", "[SEP]"))


def leaking():
    """Sinks that count, a base value, and the warning that goes with them."""
    words = "[CLS] not a single joke lands [SEP]".split()
    relevance = [0.1, -1.9, 0.05, -0.4, 0.35, -0.6, 0.02]
    ledger = (
        LedgerEntry(cause="bias", module="encoder.layer.0.dense", operation="linear", relevance=-0.31, returned=False),
        LedgerEntry(cause="bias", module="encoder.layer.1.dense", operation="linear", relevance=0.08, returned=False),
        LedgerEntry(
            cause="softmax", module="encoder.layer.1.self", operation="softmax", relevance=-0.27, returned=False
        ),
        LedgerEntry(cause="unruled", module="head", operation="erfinv", relevance=0.6, returned=False),
        *returned_leaks(0.2),
    )
    note = (
        "Relevance does not add up to the explained value: conservation error 4.9e-02, threshold 1e-04. Largest leaks: "
        "`erfinv` without a rule +0.6 in head, bias -0.31 in encoder.layer.0.dense."
    )
    value = 0.25 + sum(relevance) + 0.1
    return made(
        words, relevance, value=value, base_value=0.25, ledger=ledger, special=("[CLS]", "[SEP]"), warnings=(note,)
    )


def open_books():
    """Part of the value is missing from every line."""
    return made("it does not add up".split(), [0.5, 0.25, -0.75, 1.0, 0.125], value=1.5)


def adversarial():
    """Everything that tries to be more than text, in every place a text can stand."""
    evil = "[red]evil[/red] <b onmouseover=alert(1)>\x1b]0;title\x07"
    return made(
        ADVERSARIAL,
        [((-1) ** i) * (i + 1) / 10 for i in range(len(ADVERSARIAL))],
        model=BREAKOUT,
        method=evil,
        task=evil,
        target=Target(kind="class", label=BREAKOUT, contrast=evil),
        ledger=(LedgerEntry(cause=evil, module=BREAKOUT, operation=evil, relevance=0.3, returned=True),),
        warnings=(BREAKOUT, evil),
        recipe=Recipe(settings={BREAKOUT: evil}, versions={evil: BREAKOUT}, model_fingerprint=BREAKOUT),
        cross_check={"against": evil},
    )


ALL = {
    "review": review,
    "pair": pair,
    "long": long,
    "leaking": leaking,
    "open_books": open_books,
    "adversarial": adversarial,
}
