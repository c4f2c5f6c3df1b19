"""What is to be explained, as the command line gives it: texts, images, lines of standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from clearhead.errors import UsageError


def inputs_of(text: str | None, pair: str | None, image: Path | None, *, lines: bool) -> list[Any]:
    """The texts, images, or pairs of them, to explain, in order."""
    if text is None:
        if image is None or pair is not None or lines:
            raise UsageError("There must be something to explain: give `--text`, `--image`, or both.")
        return [image]
    if image is not None and pair is not None:
        raise UsageError("An image goes with one text: leave out `--text-pair`.")
    texts = _texts(text, pair, lines=lines)
    return [(image, each) for each in texts] if image is not None else texts


def both_of(
    given: tuple[str | None, str | None, Path | None], others: tuple[str | None, str | None, Path | None]
) -> tuple[Any, Any]:
    """The two inputs to compare: text, second text and image of each; what the other has none of is the same."""
    (text, pair, image), (other, other_pair, other_image) = given, others
    if other is not None and text is None and image is not None and other_image is None:
        other_image, other = Path(other), None
    if other is None and other_pair is None and other_image is None:
        raise UsageError("A comparison needs something that differs: give `--other`, a text or the file of an image.")
    for name, beside, mine, theirs in (
        ("--other", "--text", text, other),
        ("--other-pair", "--text-pair", pair, other_pair),
        ("--other-image", "--image", image, other_image),
    ):
        if theirs is not None and mine is None:
            raise UsageError(f"`{name}` stands beside `{beside}`, which was not given. Give both, or neither.")
    (mine,) = inputs_of(text, pair, image, lines=False)
    if "-" in (other, other_pair):
        raise UsageError("The other input is given as words: standard input can be the first one only.")
    (theirs,) = inputs_of(other or text, other_pair or pair, other_image or image, lines=False)
    return mine, theirs


def _texts(text: str, pair: str | None, *, lines: bool) -> list[Any]:
    if lines and text != "-":
        raise UsageError("`--lines` says how standard input is read: give `--text -` with it.")
    if text == "-" and pair == "-":
        raise UsageError("Standard input can be one text, not two: give `--text` or `--text-pair` as words.")
    texts = _read_stdin(lines=lines) if text == "-" else [text]
    second = _read_stdin(lines=False)[0] if pair == "-" else pair
    try:
        "".join([*texts, second or ""]).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("A text must be UTF-8; an argument holds bytes that are not.") from error
    return [(each, second) for each in texts] if second is not None else texts


def _read_stdin(*, lines: bool) -> list[str]:
    try:
        whole = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"Standard input must be UTF-8; byte {error.start} is not.") from error
    if not lines:
        return [whole.rstrip("\r\n")]
    texts = [line for line in whole.splitlines() if line.strip()]
    if not texts:
        raise UsageError("Standard input must hold at least one line that is not empty; found none.")
    return texts
