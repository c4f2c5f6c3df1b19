"""Comparisons made by hand, each for one thing a drawing can get wrong."""

from __future__ import annotations

import numpy as np

from clearhead.comparisons import Comparison, Slot, joint
from clearhead.maps import LedgerEntry, RelevanceMap, Target
from clearhead.units import Unit
from render.drawn_examples import EVIL, address, blob, grid, still
from render.examples import ADVERSARIAL, BREAKOUT, RECIPE


def made(pairs, shares, *, value=1.5, special=("[CLS]", "[SEP]"), stream="input", alike=(), **changes):
    """Slots of (a, b) with one share each; None is nothing, and equal texts are the same."""
    texts, slots = [_units([pair[n] for pair in pairs], special, stream) for n in (0, 1)], []
    sides = [iter(found) for found, _ in texts]
    for n, (a, b) in enumerate(pairs):
        kind = "inserted" if a is None else "removed" if b is None else "same" if a == b or n in alike else "replaced"
        slots.append(Slot(kind=kind, a=next(sides[0]) if a is not None else None, b=_next(sides[1], b)))
    ends = {}
    fields = {
        "method": "secant",
        "model": "example/movie-reviews-small",
        "task": "text-classification",
        "target": Target(kind="difference", label="positive", index=1, contrast="negative"),
        "recipe": RECIPE,
        "value": value,
        "base_value": value - sum(shares),
    }
    units = tuple(joint(n, slot.a, slot.b, ends) for n, slot in enumerate(slots))
    found = RelevanceMap(units=units, relevance=shares, texts={stream: texts[0][1]}, **{**fields, **changes})
    return Comparison(map=found, slots=tuple(slots), other_texts={stream: texts[1][1]})


def _next(side, text):
    return next(side) if text is not None else None


def _units(words, special, stream):
    """The units of a text with a space before each but those that begin with ##, and the text."""
    text, found, word = "", [], -1
    for each in [each for each in words if each is not None]:
        if each in special:
            found.append(Unit(index=len(found), text=each, stream=stream, special=True, start=0, end=0))
            continue
        own = each.removeprefix("##") if len(each) > 2 else each
        word += own is each
        text += "" if own is not each or not text else " "
        start = len(text)
        text += own
        found.append(Unit(index=len(found), text=own, stream=stream, start=start, end=len(text), word=word))
    return found, text


def one_word():
    """One word replaced."""
    return made([("A", "A"), ("gripping", "dull"), ("film", "film"), (".", ".")], [0.0, 4.18, 0.0, 0.0], value=2.31)


def edited():
    """Something replaced, removed and inserted, of which words have pieces; gaps have their own line."""
    pairs = [
        ("[CLS]", "[CLS]"), ("the", "the"), ("un", "good"), ("##watch", None), ("##able", None), ("film", "film"),
        (None, "is"), (None, "##n"), ("was", "was"), ("bad", "fine"), ("[SEP]", "[SEP]"),
    ]  # fmt: skip
    shares = [0.0, 0.0, -1.25, -0.5, 0.25, 0.0, 0.125, -0.062, 0.0, -2.0, 0.0]
    gaps = (
        LedgerEntry(cause="alignment", module="", operation="gaps in A", relevance=0.3, returned=False),
        LedgerEntry(cause="alignment", module="", operation="gaps in B", relevance=-0.1, returned=False),
    )
    notes = ("Where one text has nothing, [MASK] is read in its place.",)
    return made(pairs, shares, ledger=gaps, base_value=1.5 - sum(shares) - 0.2, notes=notes)


def leaks():
    """Leaks in three layers, which the shares alone do not make up for."""
    ledger = tuple(
        LedgerEntry(cause="selection", module=module, operation="topk", relevance=amount, returned=False)
        for module, amount in (
            ("model.layers.0.mlp.router", 0.25),
            ("model.layers.1.mlp.router", -0.5),
            ("model.layers.1.mlp.experts", 0.125),
            ("head", 0.0625),
        )
    )
    note = "The shares do not add up to the difference: conservation error 4.2e-02, threshold 1e-04."
    return made([("a", "a"), ("b", "c")], [0.0, 1.0], base_value=0.5625, ledger=ledger, warnings=(note,))


def wide():
    """Letters of two columns, right to left, combining marks, and a very long word."""
    pairs = [
        ("这部", "这部"),
        ("电影", "戏剧"),
        ("很", None),
        (None, "不"),
        ("好", "好"),
        ("שלום", "שלום"),
        ("e\u0301tude", "x"),
    ]
    return made([*pairs, ("w" * 130, "v" * 70)], [0.0, 0.5, 0.25, -1.0, 0.0, 0.0, 0.03, -0.4])


def lengthy():
    """Very many tokens that are the same round few that are not."""
    words = "the film is a slow but rewarding study of grief that never quite finds its feet".split() * 8
    pairs = [*((word, word) for word in words), ("last", "first"), *((word, word) for word in words)]
    return made(pairs, [0.0] * len(words) + [-0.75] + [0.0] * len(words))


def busy():
    """More slots that differ than there are bars."""
    shares = [((-1) ** n) * (n + 1) / 50 for n in range(60)]
    return made([(f"a{n}", f"b{n}") for n in range(60)], shares)


def alike():
    """Two inputs that are the same."""
    return made([("A", "A"), ("film", "film")], [0.0, 0.0], notes=("Nothing differs.",))


def hostile():
    """Everything that tries to be more than text, on both sides."""
    pairs = [*((each, each) for each in ADVERSARIAL), *((each, None) for each in ADVERSARIAL)]
    pairs += [(None, each) for each in ADVERSARIAL] + [*zip(ADVERSARIAL, reversed(ADVERSARIAL), strict=True)]
    shares = [0.0] * len(ADVERSARIAL) + [((-1) ** n) * n / 10 for n in range(3 * len(ADVERSARIAL))]
    return made(
        pairs,
        shares,
        stream=EVIL,
        special=(),
        model=BREAKOUT,
        task=EVIL,
        target=Target(kind="sequence", label=BREAKOUT),
        notes=(EVIL,),
        warnings=(BREAKOUT,),
        ledger=(LedgerEntry(cause=EVIL, module=BREAKOUT, operation=EVIL, relevance=0.25, returned=False),),
    )


def looked():
    """Two pictures."""
    shares = blob(7, 7, 3, 4, 1.5)
    shares[:2] = 0.0
    found = RelevanceMap(
        method="secant",
        model="example/vision-small",
        task="image-classification",
        target=Target(kind="class", label="bowl", index=3),
        value=2.0,
        base_value=2.0 - float(np.sum(shares)),
        units=grid(7, 7, 32),
        relevance=np.ravel(shares),
        pictures={"image": address(still())},
        recipe=RECIPE,
    )
    kinds = ["same" if not share else "replaced" for share in found.relevance]
    slots = tuple(Slot(kind=kind, a=unit, b=unit) for kind, unit in zip(kinds, found.units, strict=True))
    return Comparison(map=found, slots=slots, other_pictures={"image": address(still().rotate(180))})


COMPARISONS = {
    "comparison": one_word,
    "edited_comparison": edited,
    "leaking_comparison": leaks,
    "wide_comparison": wide,
    "lengthy_comparison": lengthy,
    "busy_comparison": busy,
    "comparison_of_the_same": alike,
    "hostile_comparison": hostile,
    "compared_pictures": looked,
}
