"""Reports on heads made by hand: a classifier's, a translator's, grouped heads, bare ones, and hostile ones."""

from __future__ import annotations

import numpy as np

from clearhead.headreports import Clusters, Curve, Group, Head, HeadReport, Pattern
from render.drawn_examples import EVIL
from render.examples import BREAKOUT, RECIPE

PATTERNS = (
    "previous token", "next token", "same token", "first token", "delimiter", "diagonal band", "block", "vertical",
    "broad", "duplicate token", "induction", "mixed",
)  # fmt: skip


def heads(stream, layers, count, shared=None):
    """The heads of a stream; `shared` of them use one key-value group."""
    return tuple(
        Head(
            stream=stream,
            layer=layer,
            head=head,
            module=f"model.{stream}.layers.{layer}.attention",
            group=None if shared is None else head // shared,
        )
        for layer in range(layers)
        for head in range(count)
    )


def patterns(count, draw):
    names = draw.choice(PATTERNS, count, p=[0.16, 0.06, 0.03, 0.2, 0.16, 0.08, 0.03, 0.06, 0.1, 0.01, 0.02, 0.09])
    return tuple(
        Pattern(
            name=str(name),
            confidence=float(draw.uniform(0.35, 0.99)),
            entropy=float(draw.uniform(0.5, 4)),
            distance=float(draw.uniform(1, 9)),
            sink=float(draw.uniform(0, 1)),
        )
        for name in names
    )


def clusters(stream, members, groups, draw):
    labels = np.sort(draw.integers(0, groups, len(members)))
    labels[:groups] = np.sort(np.arange(groups))
    labels = np.sort(labels)
    middles = draw.uniform(-1, 1, (groups, 2))
    places = middles[labels] + draw.normal(0, 0.12, (len(members), 2))
    medoids = tuple(members[int(np.flatnonzero(labels == group)[0])] for group in range(groups))
    return Clusters(
        stream=stream, members=tuple(members), labels=labels, medoids=medoids, places=places, silhouette=0.41
    )


def curves(seed=0, beats=True, orders=10, metric="accuracy"):
    """Accuracy that stays and then falls: by importance, anew after each step, at random, and from the best head."""
    draw = np.random.default_rng(seed)
    removed = np.linspace(0, 1, 13)

    def falling(middle, steep=9.0):
        shape = 1 / (1 + np.exp(steep * (removed - middle)))
        return 0.5 + 0.41 * (shape - shape[-1]) / (shape[0] - shape[-1])

    ours = 0.72 if beats else 0.42
    band = np.stack([falling(draw.uniform(0.38, 0.58)) for _ in range(orders)])
    made = [("importance", falling(ours)), ("iterative", falling(ours + 0.06)), ("worst", falling(0.15))]
    lines = [Curve(order=name, removed=removed, metric=found, metric_name=metric) for name, found in made]
    return (*lines, Curve(order="random", removed=removed, metric=band, metric_name=metric))


def report(members, seed=0, extras=True, **changes):
    draw = np.random.default_rng(seed)
    count = len(members)
    importance = draw.lognormal(-4.5, 0.9, count)
    fields = {
        "model": "example/movie-reviews-small",
        "task": "text-classification",
        "heads": members,
        "documents": 872,
        "of": "loss",
        "absolute": "example",
        "importance": importance,
        "error": importance * draw.uniform(0.02, 0.09, count),
        "recipe": RECIPE,
    }
    if extras:
        fields |= {
            "weighted": importance * draw.uniform(0.2, 2, count),
            "relevance": importance * draw.uniform(1, 9, count),
            "patterns": patterns(count, draw),
        }
    return HeadReport(**{**fields, **changes})


def classifier():
    """Six layers of twelve heads, with everything."""
    members = heads("encoder", 6, 12)
    draw = np.random.default_rng(3)
    return report(members, clusters=(clusters("encoder", range(72), 5, draw),), curves=curves())


def losing():
    """Importance that is worse than chance at saying what can go."""
    members = heads("decoder", 4, 4)
    notes = ("Importance was normalised per layer.",)
    warnings = ("The model was nearly always right: the loss hardly moves.",)
    return report(members, curves=curves(beats=False, orders=12), notes=notes, warnings=warnings, absolute="token")


def translator():
    """Three streams with other numbers of layers and heads, clusters of each."""
    members = (*heads("encoder", 6, 8), *heads("decoder", 6, 8), *heads("cross", 6, 8))
    draw = np.random.default_rng(5)
    found = tuple(clusters(name, range(n * 48, n * 48 + 48), 3 + n, draw) for n, name in enumerate(
        ("encoder", "decoder", "cross")))  # fmt: skip
    loss = curves(metric="loss")
    upside = tuple(
        Curve(order=c.order, removed=c.removed, metric=1.9 - 1.6 * c.metric, metric_name="loss") for c in loss[:2]
    )
    return report(members, clusters=found, curves=upside, task="translation", of="target", documents=40)


def grouped():
    """Grouped queries: four heads share keys and values; a second stream with fewer."""
    shared = tuple(
        Group(stream="decoder", layer=layer, group=group, importance=0.1 / (1 + layer + group), error=0.004)
        for layer in range(3)
        for group in range(2)
    )
    return report((*heads("decoder", 3, 8, shared=4), *heads("tower", 2, 2)), groups=shared, normalised=True)


def bare():
    """Nothing but importance."""
    return report(heads("encoder", 2, 4), extras=False)


def one():
    """One head, one document, one cluster."""
    members = heads("encoder", 1, 1)
    found = clusters("encoder", [0], 1, np.random.default_rng(0))
    return report(members, clusters=(found,), documents=1, error=np.array([np.nan]))


def many(layers=32, across=32):
    """1024 heads, in twelve clusters."""
    members = heads("decoder", layers, across)
    draw = np.random.default_rng(7)
    return report(members, clusters=(clusters("decoder", range(len(members)), 12, draw),), curves=curves(4))


def huge():
    """More heads than have cells of their own."""
    return many(96, 96)


def odd():
    """Zeros, what is no number, missing heads, places that all coincide, curves with holes and without a start."""
    members = tuple(h for h in heads("encoder", 3, 3) if (h.layer, h.head) != (1, 1))
    found = Clusters(
        stream="encoder",
        members=tuple(range(8)),
        labels=np.array([7, 7, 7, 7, 2, 2, 2, 2]),
        medoids=(0,),
        places=np.zeros((8, 2)),
        silhouette=float("nan"),
    )
    removed = np.array([0.25, 0.5, 0.75])
    lines = (
        Curve(order="importance", removed=removed, metric=np.array([0.5, np.nan, 0.5]), metric_name="accuracy"),
        Curve(order="random", removed=removed, metric=np.full((1, 3), 0.5), metric_name="accuracy"),
    )
    importance = np.zeros(8)
    importance[2] = np.nan
    return report(members, importance=importance, error=np.zeros(8), clusters=(found,), curves=lines)


def empty():
    """No heads at all."""
    return report(())


def hostile():
    """Everything that tries to be more than text."""
    members = tuple(
        Head(stream=stream, layer=n, head=0, module=BREAKOUT) for n in range(2) for stream in (EVIL, BREAKOUT)
    )
    names = (BREAKOUT, EVIL, "\u202eevil {{ 7*7 }}", "$x^2$")
    made = tuple(Pattern(name=name, confidence=0.5, entropy=1.0, distance=1.0, sink=0.0) for name in names)
    found = clusters(EVIL, range(4), 2, np.random.default_rng(1))
    lines = tuple(Curve(order=EVIL, removed=c.removed, metric=c.metric, metric_name=BREAKOUT) for c in curves())
    return report(
        members, patterns=made, clusters=(found,), curves=lines, model=BREAKOUT, task=EVIL, of=EVIL, absolute=BREAKOUT,
        notes=(EVIL,), warnings=(BREAKOUT,),
    )  # fmt: skip


REPORTS = {
    "classifier_heads": classifier,
    "losing_heads": losing,
    "translator_heads": translator,
    "grouped_heads": grouped,
    "bare_heads": bare,
    "one_head": one,
    "many_heads": many,
    "huge_heads": huge,
    "odd_heads": odd,
    "no_heads": empty,
    "hostile_heads": hostile,
}
