"""The documents of a data set with their labels: as they are given, or from a file or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clearhead.errors import UsageError

FEWEST = 2


def read(
    data: Any, labels: Any = None, *, images: bool = False, judged: str = "Heads are judged"
) -> tuple[list[Any], list[Any] | None]:
    """Inputs and labels: whatever gives them one by one, a file with one in each line, or a folder of images.

    A line of a file is a text or, for a model that reads `images`, the path of one, from the file's own folder; in a
    .tsv its label stands behind a tab. `judged` says in an error what they are for. Raises UsageError.
    """
    if isinstance(data, (str, Path)):
        data, labels = _stored(Path(data), labels, images=images)
    inputs, own = _listed("Data", data), None if labels is None else _listed("Labels", labels)
    if len(inputs) < FEWEST:
        raise UsageError(f"{judged} over {FEWEST} documents at least; found {len(inputs)}. Give more.")
    if own is not None and len(own) != len(inputs):
        raise UsageError(f"Each document has one label; found {len(own)} for {len(inputs)}. Give as many.")
    return inputs, own


def _listed(what: str, given: Any) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise UsageError(
            f"{what} must be a list, or give one after the other in another way; found {type(given).__name__}. Pass a "
            "list."
        )
    return list(given)


def _stored(path: Path, labels: Any, *, images: bool) -> tuple[list[Any], Any]:
    """What a file or a folder holds, and the labels that were given, or else those of the file."""
    if _is(path, Path.is_dir):
        return _folder(path, images=images), labels
    lines = [(n, line) for n, line in enumerate(_text(path).split("\n"), 1) if line.strip()]
    if path.suffix == ".tsv":
        lines, own = _columns(lines)
        labels = own if labels is None else labels
    return [_image(path, n, line) if images else line for n, line in lines], labels


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    """Is there a file or a folder? Never for a name that none can have."""
    try:
        return what(path)
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> UsageError:
    why = error.strerror if isinstance(error, OSError) else error
    return UsageError(
        f"A path as data must lead to a file of text that can be read, or to a folder of images; found "
        f"{str(path)!r:.200}: {why}. Inputs themselves are passed in a list."
    )


def _columns(lines: list[tuple[int, str]]) -> tuple[list[tuple[int, str]], list[str]]:
    rows = [(n, line.split("\t")) for n, line in lines]
    wrong = next(((n, len(row)) for n, row in rows if len(row) != 2), None)
    if wrong is not None:
        raise UsageError(
            f"A .tsv has an input and its label in each line, with a tab between; line {wrong[0]} has {wrong[1]} "
            "parts. Mend it, or call the file .txt if it has no labels."
        )
    return [(n, row[0]) for n, row in rows], [row[1] for _, row in rows]


def _image(file: Path, number: int, line: str) -> Path:
    """The image that a line names."""
    path = file.parent / line.strip()
    if not _is(path, Path.is_file):
        raise UsageError(
            f"Each line of the file must be the path of an image, from the folder of the file; line {number} of "
            f"{file.name!r} is {line!r:.200}, which leads to none. Check the path."
        )
    return path


def _folder(path: Path, *, images: bool) -> list[Path]:
    """The images that lie in a folder, by name."""
    if not images:
        raise UsageError(
            f"A folder holds images, which this model does not read; found {str(path)!r}. Pass a file with a text in "
            "each line."
        )
    from PIL import Image

    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    try:
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in endings and each.is_file())
    except OSError as error:
        raise _unreadable(path, error) from error
    if not found:
        raise UsageError(
            f"Images must lie in the folder itself; found none in {str(path)!r}. Check it, or name them in a file."
        )
    return found
