"""Validations and evaluations of models made up for the purpose: two methods and many, sane and blind, and hostile."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from checks.made import relevance_map
from clearhead.checks import Choices, evaluation, validation
from clearhead.checks.sanity import other_targets, randomised, sanity
from clearhead.validations import Candidate
from render.drawn_examples import EVIL
from render.examples import BREAKOUT, RECIPE

QUICK = Choices(orders=6, sets=16, steps=20)
NAMES = (
    "lrp lrp:attnlrp secant integrated-gradients gradient-shap input-x-gradient saliency kernel-shap shapley-sampling "
    "lime occlusion partition-shap gradient-attention attention rollout flow value-zeroing gradcam"
).split()
SHARES = NAMES[12:]  # have no sign


def validated(names=NAMES[:1] + NAMES[2:4] + ["rollout", "gradcam"], units=14, seed=0, scale="logit", ways=2, **given):
    """Maps that are the truth with more and more noise, of a model that nearly adds up."""
    draw = np.random.default_rng(seed)
    weights, pairs = draw.normal(size=units), 0.05 * draw.normal(size=(units, units))

    def scores(kept):
        return kept @ weights + ((kept @ pairs) * kept).sum(1)

    maps = {}
    for n, name in enumerate(names):
        noisy = weights + draw.normal(0, 0.12 * n, units)
        values = np.abs(draw.normal(size=units)) if name in SHARES else noisy
        maps[name] = replace(
            relevance_map(values, method=name, additive=name not in SHARES, value=float(values.sum())),
            texts={"input": "Not quite good, and not quite bad either."},
            recipe=RECIPE,
        )
    found = {"every token [MASK]": scores, "every token hidden": lambda kept: 0.3 * scores(kept)}
    removals = dict(list(found.items())[:ways])
    made = validation(maps, removals, scale=scale, against=names[0], choices=QUICK, **given)
    return replace(made, seconds={name: 0.02 * (n + 1) for n, name in enumerate(names)})


def sane():
    """One method that depends on what it should, and one that is blind to all of it."""
    first, other = relevance_map(np.arange(12.0)), relevance_map(np.arange(12.0)[::-1] - 4)
    blind = [*randomised(first, {"head": first, "layer 0": first}), *other_targets(first, {"negative": first})]
    seeing = [*randomised(first, {"head": first, "layer 0": other}), *other_targets(first, {"negative": other})]
    return validated(["lrp", "rollout"], sanity=[sanity("lrp", seeing), sanity("rollout", blind)])


@cache
def five():
    return validated()


@cache
def eighteen():
    return validated(NAMES, units=40, scale="log-probability")


def two():
    return validated(["lrp", "rollout"], units=8, ways=1)


def few():
    return validated(["lrp", "rollout"], units=3)


def one():
    return validated(["lrp"], units=6)


@cache
def averaged():
    """Means over twelve inputs of five methods, with paired tests."""
    made = evaluation([validated(seed=seed, units=9 + seed % 4) for seed in range(12)], skipped={"too long": 2})
    names = made.methods
    candidates = tuple(Candidate(method=m, share=1 - n / 9, seconds=0.01 * n, level=n < 2) for n, m in enumerate(names))
    return replace(made, seconds=dict.fromkeys(names, 0.03), candidates=candidates, chosen=names[1])


def hostile():
    """Every text that a file may hold tries something."""
    made = validated([EVIL, BREAKOUT], units=8)
    ways = tuple(replace(each, removal=EVIL, scale=BREAKOUT, notes=(EVIL,)) for each in made.faithfulness)
    texts = {"input": f"{EVIL} {BREAKOUT}"}
    return replace(made, model=EVIL, task=BREAKOUT, faithfulness=ways, notes=(EVIL, BREAKOUT), texts=texts)


JUDGED = {
    "judged": five,
    "judged_many": eighteen,
    "judged_two": two,
    "judged_few": few,
    "judged_one": one,
    "judged_sane": sane,
    "judged_mean": averaged,
    "judged_hostile": hostile,
}
