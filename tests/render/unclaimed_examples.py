"""Maps of shares and scores, which claim no books, with notes and cross-checks, made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from clearhead.generations import GenerationMap
from clearhead.maps import RelevanceMap, Target
from render.drawn_examples import (
    EVIL,
    address,
    captioned,
    described,
    hostile_generation,
    of_units,
    patches,
    translation,
)
from render.examples import BREAKOUT, adversarial, pair, review

BLIND = "This method ignores the target: it depends on where the answer is read, not on which answer is meant."
SENTENCE = (
    "Attention says where a layer looked, not what the answer came from: values, the residual path and the layers "
    "after it decide what becomes of a look."
)
LAYER = (
    "Looked at bert.encoder.layer.4, the last block whose gradient reaches more than the position that the head reads."
)
WORDS = ("agrees", "weakly related", "no better than chance", "too few units to say")


def checked(verdict="agrees", /, **changes):
    """A cross-check in the form that is drawn as one."""
    figures = {
        "agrees": (0.71, 0.6),
        "weakly related": (0.46, 0.4),
        "no better than chance": (-0.12, 0.2),
        "too few units to say": (None, None),
    }[verdict]
    fields = {
        "against": "lrp",
        "spearman": figures[0],
        "spearman_chance": None if figures[0] is None else 0.43,
        "top_k": 5,
        "top_k_overlap": figures[1],
        "chance": None if figures[0] is None else 0.2,
        "units": 3 if figures[0] is None else 23,
        "verdict": verdict,
        "sentence": SENTENCE,
    }
    return {**fields, **changes}


def shared(found, **changes):
    """The same units with shares that add up to 1."""
    size = np.abs(found.relevance) + 0.01
    fields = {"ledger": (), "additive": False, "method": "rollout", **changes}
    return replace(found, relevance=size / size.sum(), **fields)


def rollout():
    """Shares of a text, and agreement."""
    return shared(review(), notes=(BLIND,), cross_check=checked())


def towers():
    """Shares of two texts, without much agreement."""
    return shared(pair(), notes=(BLIND,), cross_check=checked("weakly related"), method="attention")


def scored(found, **changes):
    """The same units with scores of both signs."""
    return replace(found, relevance=found.relevance * 3.7, ledger=(), additive=False, method="gradcam", **changes)


def cam():
    """Scores of both signs: nothing adds up, and chance would do as well."""
    return scored(review(), notes=(LAYER,), cross_check=checked("no better than chance"))


def few():
    """Three units, about which nothing can be said."""
    return replace(
        shared(replace(review(), units=review().units[1:4], relevance=review().relevance[1:4])),
        cross_check=checked("too few units to say"),
    )


def heat():
    """GradCAM of a picture: scores of which none is negative."""
    found = patches()
    amounts = np.maximum(found.relevance * 9, 0)[:196]
    return replace(
        found,
        units=found.units[:196],
        relevance=amounts,
        ledger=(),
        additive=False,
        method="gradcam",
        notes=("Looked at vit.layers.10, a grid of 14 by 14 patches.",),
        cross_check=checked("weakly related", units=196, spearman=0.31, spearman_chance=0.14, chance=0.0255),
    )


def features():
    """A convolution's map of 3 x 5 on a picture that is no square."""
    from PIL import Image

    from render.drawn_examples import grid, still

    return of_units(
        grid(3, 5, 64),
        [0, 0, 1, 2, 0, 0, 3, 9, 4, 0, 0, 1, 2, 1, 0],
        pictures={"image": address(still(320).crop((0, 64, 320, 256)).resize((320, 192), Image.Resampling.LANCZOS))},
        additive=False,
        method="gradcam",
        ledger=(),
        value=8.25,
    )


def seen_and_read():
    """Shares of a picture and a text together."""
    return shared(captioned(), cross_check=checked(units=55))


def hostile():
    """Everything that tries to be more than text, also in notes and in the cross-check."""
    return replace(
        adversarial(),
        relevance=np.arange(len(adversarial().units)) / 7.0,
        additive=False,
        notes=(BREAKOUT, EVIL),
        cross_check=checked(against=BREAKOUT, sentence=EVIL, more=BREAKOUT),
    )


# ---- generations ---------------------------------------------------------------------------------------------------


def _rows(found, verdicts, make):
    rows = (
        make(row, cross_check=checked(verdict)) if verdict else make(row)
        for row, verdict in zip(found, verdicts, strict=True)
    )
    return GenerationMap(rows=tuple(rows))


def looked():
    """A translation by rollout: five rows, of which three agree."""
    verdicts = ("agrees", "agrees", "weakly related", "agrees", "no better than chance")
    return _rows(translation(), verdicts, lambda row, **more: shared(row, notes=(BLIND,), **more))


def cams():
    """A translation by GradCAM: scores of both signs, and a row without a comparison."""
    return _rows(translation(), ("agrees", "agrees", None, "agrees", "weakly related"), scored)


def described_shares():
    """A picture and what is said of it, as shares."""
    return _rows(described(), (None, "agrees", "agrees"), shared)


def mixed():
    """A row of relevance and one of shares, which no method makes."""
    rows = translation().rows[:2]
    return GenerationMap(rows=(rows[0], shared(rows[1])))


def hostile_rows():
    """Hostile texts in the rows' notes and cross-checks."""
    return _rows(
        hostile_generation(),
        ("agrees", "weakly related"),
        lambda row, cross_check: shared(
            row, notes=(EVIL,), cross_check={**cross_check, "against": BREAKOUT, "sentence": BREAKOUT}
        ),
    )


def plain(words=("a", "b"), relevance=(0.25, 0.75), **changes):
    """Two words and what is asked for."""
    from clearhead.units import Unit

    fields = {
        "method": "attention",
        "model": "toy",
        "task": "text-classification",
        "target": Target(kind="class", label="positive"),
        "value": 3.25,
        "additive": False,
    }
    units = tuple(Unit(index=i, text=word) for i, word in enumerate(words))
    return RelevanceMap(units=units, relevance=relevance, **{**fields, **changes})


MAPS = {
    "rollout": rollout,
    "towers": towers,
    "cam": cam,
    "few": few,
    "heat": heat,
    "features": features,
    "seen_and_read": seen_and_read,
    "hostile": hostile,
}
ROWS = {
    "looked": looked,
    "cams": cams,
    "described_shares": described_shares,
    "mixed": mixed,
    "hostile_rows": hostile_rows,
}
