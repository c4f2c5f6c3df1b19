"""Tokens as targets: their ids by name, the score of one, the log-probability of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import UsageError
from clearhead.maps import Target
from clearhead.question import Ask, Choice
from clearhead.subjects.targets import OTHERS, logits, picked
from clearhead.units import Unit


def token_id(tokenizer: Any, wanted: str | int | None, name: str, *, first_piece: bool) -> int | None:
    """The id of a token by its text, its spelling in the vocabulary, or its number; None for None.

    Raises UsageError for a text that the tokenizer splits, unless its `first_piece` is wanted, and for one it does
    not know.
    """
    if wanted is None:
        return None
    if isinstance(wanted, bool) or not isinstance(wanted, (str, int)):
        raise UsageError(f"`{name}` must be a token, its id or a function; found {wanted!r}.")
    if isinstance(wanted, int):
        if not 0 <= wanted < len(tokenizer):
            raise UsageError(f"`{name}` must be the id of a token, from 0 to {len(tokenizer) - 1}; found {wanted}.")
        return wanted
    if not wanted:
        raise UsageError(f"`{name}` must be a token; found an empty text.")
    pieces = _pieces(tokenizer, wanted)
    if len(pieces) == 1 and pieces[0] != tokenizer.unk_token_id:
        return pieces[0]
    spelled = tokenizer.convert_tokens_to_ids(wanted)
    if isinstance(spelled, int) and (spelled != tokenizer.unk_token_id or wanted == tokenizer.unk_token):
        return spelled
    known = [piece for piece in pieces if piece != tokenizer.unk_token_id]
    if first_piece and known[:1] == pieces[:1] and known:
        return known[0]
    raise _not_one(tokenizer, wanted, name, pieces)


def _pieces(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text, without a blank piece that only stands for the space before a word."""
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    while len(found) > 1 and not tokenizer.decode(found[:1]).strip() and tokenizer.decode(found[1:]).strip():
        found = found[1:]
    return found


def _not_one(tokenizer: Any, wanted: str, name: str, pieces: Sequence[int]) -> UsageError:
    if not pieces or tokenizer.unk_token_id in pieces:
        return UsageError(
            f"`{name}` must be a token that the model knows; its tokenizer does not know {wanted!r}. Choose another."
        )
    listed = " + ".join(repr(piece) for piece in tokenizer.convert_ids_to_tokens(list(pieces)))
    spaced = [] if wanted.startswith(" ") else _pieces(tokenizer, f" {wanted}")
    hint = f" With a space before it, {f' {wanted}'!r} is one token." if len(spaced) == 1 else ""
    return UsageError(
        f"`{name}` must be one token; the tokenizer splits {wanted!r} into {listed}.{hint} Name one of the pieces, or "
        "take the first with first_piece=True (--first-piece)."
    )


def namer(tokenizer: Any) -> Callable[[int], str]:
    """The text of a token by its id, as it reads, or its spelling where it has none."""

    def name(number: int) -> str:
        text = tokenizer.decode([number], clean_up_tokenization_spaces=False)
        spelled = tokenizer.convert_ids_to_tokens(number)
        return str(text if text.strip() and "\ufffd" not in text else spelled)

    return name


def contrast_id(tokenizer: Any, contrast: str | int | None, *, first_piece: bool) -> int | str | None:
    """The id of the token to explain against, or all others."""
    if contrast == OTHERS:
        return OTHERS
    return token_id(tokenizer, contrast, "contrast", first_piece=first_piece)


def token(
    position: int, wanted: int | None, against: int | str | None, name: Callable[[int], str], place: int | None = None
) -> Ask:
    """The logit of a token at a position of the output, by default of the most probable one; `place` is said of it."""

    def choose(outputs: list[Any], row: int) -> Ask:
        chosen = int(logits(outputs[0])[row, position].detach().argmax()) if wanted is None else wanted
        return lambda outputs, row: picked(
            logits(outputs[0])[row, position], chosen, against, name, kind="token", position=place
        )

    return Choice(choose)


def sequence(positions: Sequence[int], ids: Sequence[int], text: str) -> Ask:
    r"""The log-probability of tokens at positions of the output: $\sum_t \log p(w_t \mid w_{<t})$."""

    def ask(outputs: list[Any], row: int) -> tuple[Target, Tensor]:
        scores = logits(outputs[0])[row, list(positions)]
        logs = torch.log_softmax(scores, dim=-1)
        chosen = torch.tensor(list(ids), device=logs.device)[:, None]
        return Target(kind="sequence", label=text), logs.gather(-1, chosen).sum()

    return ask


# ---- where ---------------------------------------------------------------------------------------------------------


def place(units: Sequence[Unit], wanted: str | int) -> int:
    """The unit at an index, or the only one that reads so; of a word, its first token. Raises UsageError."""
    if isinstance(wanted, bool) or not isinstance(wanted, (str, int)):
        raise UsageError(f"`position` must be the index of a token, or its text; found {wanted!r}.")
    if isinstance(wanted, int):
        if not -len(units) <= wanted < len(units):
            raise UsageError(f"`position` must be the index of a token, from 0 to {len(units) - 1}; found {wanted}.")
        return wanted % len(units)
    found = [i for i, unit in enumerate(units) if unit.text == wanted] or _words(units, wanted)
    if len(found) != 1:
        read = " ".join(unit.text for unit in units)
        many = f"stands at {' and '.join(map(str, found))}" if found else "is none"
        raise UsageError(f"`position` must be one token of {read!r}; {wanted!r} {many}. Give its index.")
    return found[0]


def _words(units: Sequence[Unit], wanted: str) -> list[int]:
    """The first tokens of the words that read so."""
    words: dict[tuple[str, int], list[int]] = {}
    for i, unit in enumerate(units):
        if unit.word is not None:
            words.setdefault((unit.stream, unit.word), []).append(i)
    return [members[0] for members in words.values() if "".join(units[i].text for i in members) == wanted]
