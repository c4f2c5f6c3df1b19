"""Attention made by hand: a classifier's, a translator's with its two streams of other shapes, and hostile ones."""

from __future__ import annotations

import numpy as np

from clearhead.attentions import AttentionMaps, LayerMap, StreamMaps
from clearhead.units import Unit
from render.drawn_examples import EVIL
from render.examples import BREAKOUT, RECIPE


def units(words, stream="input"):
    return tuple(Unit(index=i, text=word, stream=stream) for i, word in enumerate(words))


def weights(heads, queries, keys, seed=0, causal=False):
    """Random rows that add up to 1, some heads sharp and some flat, with a sink at the first key."""
    draw = np.random.default_rng(seed)
    sharp = np.linspace(0.5, 4, heads)[:, None, None]
    scores = draw.normal(0, 1, (heads, queries, keys)) * sharp
    near = -np.abs(np.arange(queries)[:, None] * keys / queries - np.arange(keys)[None, :]) / 2
    scores += near * sharp / 2
    scores[..., 0] += 1.5
    if causal:
        scores[:, np.triu(np.ones((queries, keys), dtype=bool), 1)] = -np.inf
    power = np.exp(scores - scores.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def layer(table, queries, keys, label="encoder.layer.0.attention", asked=None):
    """A layer of these weights, given out in blocks of 7 queries; `asked` counts how often."""

    def blocks(rows):
        if asked is not None:
            asked.append(rows)
        chosen = np.arange(table.shape[1]) if rows is None else np.array(rows)
        for start in range(0, len(chosen), 7):
            part = chosen[start : start + 7]
            yield part, table[:, part]

    return LayerMap(label=label, heads=len(table), queries=queries, keys=keys, blocks=blocks)


def stream(name, layers, heads, queries, keys, causal=False):
    tables = [weights(heads, len(queries), len(keys), seed, causal) for seed in range(layers)]
    made = [layer(t, queries, keys, f"model.{name}.layers.{n}.attention") for n, t in enumerate(tables)]
    return StreamMaps(name=name, layers=tuple(made))


def maps(*streams, **changes):
    fields = {
        "model": "example/movie-reviews-small",
        "task": "text-classification",
        "maps": {each.name: each for each in streams},
        "units": streams[0].layers[0].keys if streams else (),
        "texts": {"input": "a gripping, beautiful film"},
        "recipe": RECIPE,
    }
    return AttentionMaps(**{**fields, **changes})


def short():
    """Six layers of four heads over a short text."""
    read = units("[CLS] a gripping , beautiful film , if not quite as moving as the book . [SEP]".split())
    return maps(stream("encoder", 6, 4, read, read))


def wide():
    """Twelve layers of twelve heads over 128 tokens."""
    read = units([f"w{n}" for n in range(128)])
    return maps(stream("encoder", 12, 12, read, read))


def translator():
    """An encoder, a decoder that looks back, and what it sees of the encoder."""
    read, said = units("the house is small .".split(), "encoder"), units("<s> Das Haus ist klein".split(), "decoder")
    return maps(
        stream("encoder", 3, 4, read, read),
        stream("decoder", 2, 8, said, said, causal=True),
        stream("cross", 2, 8, said[:3], read),
        task="translation",
        texts={"encoder": "the house is small.", "decoder": "Das Haus ist klein."},
    )


def hostile():
    """Everything that tries to be more than text."""
    read = units([BREAKOUT, EVIL, "\u202eevil {{ 7*7 }}", "$x^2$", ""])
    made = stream("encoder", 2, 2, read, read)
    odd = [layer(weights(2, 5, 5), read, read, label=BREAKOUT), *made.layers]
    return maps(
        StreamMaps(name=EVIL, layers=tuple(odd)), model=BREAKOUT, task=EVIL, texts={EVIL: BREAKOUT}, warnings=(EVIL,)
    )


def odd():
    """One unit, one head; heads of different number; zeros and what is no number."""
    one, two = units(["x"]), units(["x", "y"])
    bad = np.array([[[np.nan, 0.0], [0.0, 0.0]]])
    layers = (layer(np.ones((1, 1, 1)), one, one), layer(bad, two, two), layer(weights(3, 2, 2), two, two, label=""))
    return maps(StreamMaps(name="encoder", layers=layers), texts={})


ATTENTIONS = {"short": short, "translator": translator, "wide": wide, "hostile_attention": hostile, "odd": odd}
