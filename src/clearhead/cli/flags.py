"""The flags of the command line: those of settings are made from `Settings` itself."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.rulebook import RULEBOOK

TASKS = (  # for the help, as the two below; the library decides
    "text-classification, token-classification, question-answering, masked-lm, encoder-decoder, causal-lm, "
    "image-classification, image-text-similarity, sentence-similarity"
)
POOLINGS, UNITS = "mean|cls", "token|word|sentence|patch|pixel"

Model = Annotated[str, typer.Option(metavar="PATH", help="A model folder, or a hub id.")]
ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings from a TOML file.")]
Task = Annotated[str | None, typer.Option(metavar="TASK", help=f"What the model does; by default it says: {TASKS}.")]
Pooling = Annotated[str | None, typer.Option(metavar=POOLINGS, help="Tokens to sentence; by default the model says.")]
DeviceMap = Annotated[
    str | None, typer.Option(metavar="WORD", help="Where the model goes: auto, cuda, cpu, ... (needs accelerate).")
]
Text = Annotated[str | None, typer.Option(help="The text, or the prompt; `-` reads standard input.")]
TextPair = Annotated[str | None, typer.Option(help="The second text: to compare with, or the context; `-` as above.")]
Image = Annotated[Path | None, typer.Option(metavar="FILE", help="The image, for models that read one.")]
Lines = Annotated[bool, typer.Option("--lines", help="Each line of standard input is a text of its own.")]
Target = Annotated[str | None, typer.Option(metavar="LABEL", help="The label to explain; default: the predicted one.")]
Contrast = Annotated[
    str | None, typer.Option(metavar="LABEL", help="Explain the target against this label or token, or `others`.")
]
TargetToken = Annotated[str | None, typer.Option(metavar="TOKEN", help="The token to explain, for language models.")]
FirstPiece = Annotated[bool, typer.Option("--first-piece", help="Of a target that is several tokens, take the first.")]
Position = Annotated[
    str | None, typer.Option(metavar="TOKEN", help="Which token is classified, guessed or produced: its text or index.")
]
Generate = Annotated[int | None, typer.Option(metavar="N", help="Let the model write N tokens; explain each of them.")]
Continuation = Annotated[str | None, typer.Option(help="Explain each token of this text as the model's own.")]
Baseline = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORD|TEXT|FILE",
        help="What the input is compared with (secant, and most of feature attribution): mask, pad, zero, mean, blur, "
        "another text of as many tokens or the file of an image; attention-mask or delete where units are removed; "
        "given more than once, the mean over all.",
    ),
]
Other = Annotated[
    str | None, typer.Option(metavar="TEXT|FILE", help="The other text, or the other image where no text is given.")
]
OtherPair = Annotated[str | None, typer.Option(help="The other second text; by default the same as --text-pair.")]
OtherImage = Annotated[Path | None, typer.Option(metavar="FILE", help="The other image, beside a text.")]
ByPosition = Annotated[bool, typer.Option("--by-position", help="Pair tokens by place instead of aligning them.")]
Whole = Annotated[str | None, typer.Option(help="Compare how probable this text is behind both inputs.")]
Units = Annotated[str | None, typer.Option(metavar=UNITS, help="What relevance is summed over.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 if a map does not conserve within the threshold.")]
Remote = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per text, each on its own line.")]
Data = Annotated[
    Path,
    typer.Option(
        metavar="PATH",
        help="A file with a text or the path of an image in each line, in a .tsv with its label behind a tab; or a "
        "folder of images.",
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME,...",
        help="What is judged, as in lrp,secant,lrp:attnlrp (a preset behind a colon); by default five methods.",
    ),
]
Removals = Annotated[
    str | None,
    typer.Option(
        metavar="WORD,WORD,...",
        help="How units are removed: mask, pad, zero, mean, blur, attention-mask, delete; by default two ways.",
    ),
]
Against = Annotated[str | None, typer.Option(metavar="NAME", help="The method that agreement is quoted with.")]
NoSanity = Annotated[
    bool, typer.Option("--no-sanity", help="Leave out the tests with random weights, other targets and other inputs.")
]
Seconds = Annotated[float, typer.Option(metavar="S", help="How long to measure, about.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Only the first N inputs.")]
Of = Annotated[str | None, typer.Option(metavar="target|loss", help="What heads matter for (default target).")]
Absolute = Annotated[
    str | None, typer.Option(metavar="example|token", help="Absolute values are taken of each (default example).")
]
Normalise = Annotated[bool, typer.Option("--normalise", help="Divide importance by the L2 norm of its layer.")]
Prune = Annotated[bool, typer.Option("--prune", help="Measure what happens as ever more heads go.")]
Resume = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Keep finished work here; interrupted, the same command goes on.")
]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a file; its ending says what is written.")]


def setting_flags() -> list[inspect.Parameter]:
    """One flag per setting; names, types, words and meanings all come from `Settings`."""
    hints = get_type_hints(Settings)
    return [_flag(each, hints[each.name]) for each in fields(Settings)]


def _flag(setting: Field[Any], kind: Any) -> inspect.Parameter:
    """A flag that is None unless given; words are checked by `Settings`, which names the nearest."""
    words = "|".join(get_args(kind)) if get_origin(kind) is Literal else _SPELLED.get(setting.name)
    usual = f" (default {toml(setting.default)})" if setting.default not in (None, MISSING) else ""
    option = typer.Option(help=f"{setting.metadata['meaning']}{usual}", metavar=words)
    hint: Any = Annotated[(str if words else kind) | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


# Settings that are written as text on the command line: how, and what the text means.
_SPELLED = {"layer": "N|PATH", "heads": "N,N,...", "rules": "LAYERS=RULE[:NUMBER],..."}


def spelled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with texts read as what they mean. Raises UsageError for one that means nothing."""
    found = dict(settings)
    if isinstance(found.get("layer"), str):
        found["layer"] = number(found["layer"])
    if isinstance(found.get("heads"), str):
        heads = [number(each.strip()) for each in found["heads"].split(",")]
        if not all(isinstance(each, int) for each in heads):
            raise UsageError(
                f"`--heads` takes numbers with commas between them, as in 0,3,5; found {found['heads']!r}."
            )
        found["heads"] = tuple(heads)
    if isinstance(found.get("rules"), str):
        found["rules"] = dict(map(_rule, found["rules"].split(",")))
    return found


def _rule(text: str) -> tuple[str, Any]:
    """`input=w2` and `0..3=gamma:0.5` as an entry of the table of rules. Raises UsageError."""
    words, sign, rule = text.strip().partition("=")
    rule, colon, number = rule.strip().partition(":")
    takes = {name: each.takes[0] for name, each in RULEBOOK.items() if len(each.takes) == 1}
    if not words or not sign or not rule:
        raise UsageError(f"`--rules` takes layers and their rules, as in 'input=w2,0..3=gamma:0.5'; found {text!r}.")
    if not colon:
        return words.strip(), rule
    try:
        return words.strip(), {"rule": rule, takes[rule]: float(number)}
    except (KeyError, ValueError) as error:
        raise UsageError(f"`--rules` takes a number behind {', '.join(takes)}; found {text!r}.") from error


def listed(text: str | None) -> list[str] | None:
    """A text with commas as its parts."""
    return None if text is None else [each.strip() for each in text.split(",")]


def single(several: list[str] | None) -> str | list[str] | None:
    """What was given once as itself, and more as a list."""
    return several[0] if several and len(several) == 1 else several or None


def number(text: str | None) -> str | int | None:
    """A text as a whole number, if it is one."""
    return int(text) if text is not None and text.lstrip("-").isdecimal() else text


def toml(value: Any) -> str:
    """A value as a settings file writes it."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(text: str) -> str:
    return text if text.replace("-", "").replace("_", "").isalnum() else json.dumps(text)


def _value(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else toml(value)


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given at all."""
    return {name: value for name, value in settings.items() if value is not None}
