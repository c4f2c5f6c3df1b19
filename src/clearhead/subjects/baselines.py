"""From what a user wants an input compared with to the baselines of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import UsageError, choice
from clearhead.question import Baseline, Item, Operator, Pass
from clearhead.subjects import filling
from clearhead.subjects.filling import Filled, Vector
from clearhead.subjects.images import is_image
from clearhead.subjects.setting import Setting, called
from clearhead.subjects.sides import Side, sides

REMOVING = ("kernel-shap", "shapley-sampling", "lime", "occlusion", "partition-shap")  # methods that remove units
# The methods that compare an input with baselines.
COMPARING = ("secant", "integrated-gradients", "gradient-shap", "deeplift", *REMOVING)
# Ways to remove that put nothing in a token's place, and what an input without any token is called.
OPERATORS: dict[Operator, str] = {
    "attention-mask": "every token hidden by the attention mask",
    "delete": "every token left out",
}


def baselines(
    setting: Setting, asked: Any, passes: Sequence[Pass], items: Sequence[Item], kept: frozenset[int] = frozenset()
) -> tuple[Baseline, ...]:
    """What a question is compared with: a word, a text, an image, a tensor, a pair of these, or a list for several.

    A word stands for every side that knows it, and the default for any other; a string that no side knows is a text,
    or the path of an image. A text or image stands for what was given, and what the model produced stays. Special
    tokens, padding and the positions `kept` stay. Of the `OPERATORS` the tensors only say what can be removed. Raises
    UsageError for what does not fit.
    """
    found = sides(passes, items, kept)
    several = asked if isinstance(asked, list) else [asked]
    if not several:
        raise UsageError("A list of baselines holds at least one; found none. Leave `baseline` out for the default.")
    return tuple(_of(setting, passes, found, each) for each in several)


def _of(setting: Setting, passes: Sequence[Pass], found: Sequence[Side], asked: Any) -> Baseline:
    for operator, label in OPERATORS.items():
        if isinstance(asked, str) and asked == operator:
            gone = _baseline(passes, found, [filling.by_word(setting, side, "zero") for side in found])
            return replace(gone, label=label, operator=operator)
    return _baseline(passes, found, _filled(setting, found, asked))


def _baseline(passes: Sequence[Pass], found: Sequence[Side], filled: Sequence[Filled | None]) -> Baseline:
    tensors = [dict(part.tensors) for part in passes]
    vectors: set[Vector] = set()
    for side, new in zip(found, filled, strict=True):
        if new is not None:
            into = tensors[side.number]
            into[side.name] = torch.where(side.where, new.value, into[side.name])
            vectors |= {new.vector} if new.vector else set()
    if len(vectors) > 1:
        raise UsageError("Both members of a baseline are 'zero', or both 'mean'; found one of each. Choose one.")
    return Baseline(label=_label(found, filled), tensors=tuple(tensors), vector=vectors.pop() if vectors else "zero")


def _label(found: Sequence[Side], filled: Sequence[Filled | None]) -> str:
    """What stands in for an input, said for each stream where it is not the same."""
    labels = {side.stream: new.label for side, new in zip(found, filled, strict=True) if new is not None}
    stays = any(new is None and side.produced for side, new in zip(found, filled, strict=True))
    if len(set(labels.values())) == 1:
        said = next(iter(labels.values()))
    else:
        said = "; ".join(f"{stream}: {label}" for stream, label in labels.items())
    return f"{said}; what was produced stays" if stays else said


# ---- what stands in for each side ----------------------------------------------------------------------------------


def _filled(setting: Setting, found: Sequence[Side], asked: Any) -> list[Filled | None]:
    """What stands in for each side; None for one that stays as it is."""
    known = dict.fromkeys(word for side in found for word in filling.words(setting, side))
    if asked is None or (isinstance(asked, str) and asked in known):
        return [_by_word(setting, side, asked) for side in found]
    if isinstance(asked, str) and asked in filling.ALL:
        raise choice("baseline", asked, known)
    if isinstance(asked, Mapping):
        return _by_names(setting, found, asked)
    if isinstance(asked, Tensor):
        if len({(side.number, side.name) for side in found}) > 1:
            names = ", ".join(dict.fromkeys(f"`{side.name}`" for side in found))
            raise UsageError(f"One tensor was given as a baseline for {names}. Give a mapping of tensors by name.")
        return [filling.by_tensor(setting, side, asked) for side in found]
    given = [side for side in found if not side.produced]
    members = _members(given, asked)
    new = iter([_by_member(setting, side, member) for side, member in zip(given, members, strict=True)])
    return [None if side.produced else next(new) for side in found]


def _members(given: Sequence[Side], asked: Any) -> tuple[Any, ...]:
    """What was asked for each side that was given. Raises UsageError if it is not one for each."""
    members = asked if isinstance(asked, tuple) else (asked,)
    if len(members) == len(given):
        return members
    streams = ", ".join(side.stream for side in given)
    found = f"a tuple of {len(asked)}" if isinstance(asked, tuple) else called(asked)
    if len(given) == 1:
        raise UsageError(f"A baseline for one input is no tuple; found {found}. Several baselines are a list.")
    raise UsageError(
        f"A baseline for a pair is a word, or a pair ({streams}) whose members may be words; found {found}. Give both."
    )


def _by_word(setting: Setting, side: Side, word: str | None) -> Filled:
    """A word, or the default where that means nothing to a side."""
    if word is None or word not in filling.words(setting, side):
        return filling.by_default(setting, side)
    return filling.by_word(setting, side, word)


def _by_names(setting: Setting, found: Sequence[Side], tensors: Mapping[Any, Any]) -> list[Filled | None]:
    """Tensors by name, for a question of one pass; those that are not named stay as they are."""
    if any(side.number != found[0].number for side in found):
        raise UsageError("A baseline of tensors for two texts is a pair of mappings; found one mapping. Give both.")
    names = list(dict.fromkeys(side.name for side in found))
    here = found[0].part.tensors
    other = [str(name) for name, t in tensors.items() if name not in names and not _equal(t, here.get(name))]
    if other or not set(names) & set(tensors):
        raise UsageError(
            f"A baseline of tensors replaces {' and '.join(map(repr, names))}; found "
            f"{', '.join(map(repr, other or tensors)) or 'none'}. Everything else stays as it is: leave it out."
        )
    return [filling.by_tensor(setting, side, tensors[side.name]) if side.name in tensors else None for side in found]


def _equal(one: Any, other: Any) -> bool:
    """Are these the same tensor, so that it makes no difference whether it is named?"""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    return one.shape == other.shape and torch.equal(one.to(other.device), other)


def _by_member(setting: Setting, side: Side, asked: Any) -> Filled | None:
    """What stands in for one side. Raises UsageError for what is of another kind."""
    known = filling.words(setting, side)
    if asked is None or (isinstance(asked, str) and asked in known):
        return _by_word(setting, side, asked)
    if isinstance(asked, Mapping):
        return _by_names(setting, [side], asked)[0]
    if isinstance(asked, Tensor):
        return filling.by_tensor(setting, side, asked)
    reads = setting.processor is not None
    if reads and side.kind == "ids" and isinstance(asked, str):
        return filling.by_text(setting, side, asked)
    if reads and side.kind == "image" and (isinstance(asked, str) or is_image(asked)):
        return filling.by_image(setting, side, asked)
    if isinstance(asked, str):
        raise choice("baseline", asked, known)
    kind = {"ids": "a text", "image": "an image", "vectors": "a tensor"}[side.kind] if reads else "a tensor"
    raise UsageError(
        f"What {kind} is compared with is {kind} too, a tensor of its shape, or one of {', '.join(known)}; found "
        f"{called(asked)}. Choose one of these."
    )
