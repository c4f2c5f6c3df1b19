"""The command line: flags become one call of the library, its result becomes output, its errors one message."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from clearhead.config import Settings, meanings
from clearhead.errors import ClearheadError, UsageError

if TYPE_CHECKING:
    from clearhead.generations import GenerationMap
    from clearhead.maps import RelevanceMap
    from clearhead.visualizer import AttentionVisualizer

TASKS = (  # for the help, as the two below; the library decides
    "text-classification, token-classification, question-answering, masked-lm, encoder-decoder, causal-lm, "
    "image-classification, image-text-similarity, sentence-similarity"
)
POOLINGS, UNITS = "mean|cls", "token|word|sentence|patch|pixel"
TOGETHER = 64  # inputs that are explained before the first of them is printed
CHECK_FAILED, USAGE, BUG = 1, 2, 3  # exit codes; 0 is success


def _version(wanted: bool) -> None:
    if wanted:
        import clearhead

        typer.echo(f"clearhead {clearhead.__version__}")
        raise typer.Exit


app = typer.Typer(
    name="clearhead",
    help="Explains the predictions of transformers, and shows that its books balance.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings from a TOML file.")]
Task = Annotated[str | None, typer.Option(metavar="TASK", help=f"What the model does; by default it says: {TASKS}.")]
Pooling = Annotated[str | None, typer.Option(metavar=POOLINGS, help="Tokens to sentence; by default the model says.")]
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
Units = Annotated[str | None, typer.Option(metavar=UNITS, help="What relevance is summed over.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 if a map does not conserve within the threshold.")]
Remote = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per text, each on its own line.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a file; its ending says what is written.")]
Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


# ---- from functions to commands ------------------------------------------------------------------------------------


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _setting_flags() -> list[inspect.Parameter]:
    """One flag per setting; names, types, words and meanings all come from `Settings`."""
    hints = get_type_hints(Settings)
    return [_flag(each, hints[each.name]) for each in fields(Settings)]


def _flag(setting: Field[Any], kind: Any) -> inspect.Parameter:
    """A flag that is None unless given; words are checked by `Settings`, which names the nearest."""
    words = "|".join(get_args(kind)) if get_origin(kind) is Literal else None
    option = typer.Option(help=f"{setting.metadata['meaning']} (default {_toml(setting.default)})", metavar=words)
    hint: Any = Annotated[(str if words else kind) | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function as a command: `**settings` becomes the setting flags, errors become exit codes."""
    signature = inspect.signature(function, eval_str=True)
    parameters = list(signature.parameters.values())
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        parameters[-1:] = _setting_flags()

    @functools.wraps(function)
    def run(**given: Any) -> None:
        try:
            function(**given)
        except ClearheadError as error:
            _say(f"clearhead: {error}")
            raise typer.Exit(USAGE) from error
        except (typer.Exit, typer.Abort, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:
            traceback.print_exc()
            _say("clearhead: this is a bug in clearhead; please report it with the lines above.")
            raise typer.Exit(BUG) from error

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(run)


@app.callback()
def _start(*, version: Version = False) -> None:
    """Explains the predictions of transformers, and shows that its books balance."""


# ---- the commands --------------------------------------------------------------------------------------------------


@_command
def explain(
    *,
    model: Annotated[str, typer.Option(metavar="PATH", help="A model folder, or a hub id.")],
    text: Text = None,
    text_pair: TextPair = None,
    image: Image = None,
    lines: Lines = False,
    task: Task = None,
    pooling: Pooling = None,
    target: Target = None,
    contrast: Contrast = None,
    target_token: TargetToken = None,
    first_piece: FirstPiece = False,
    position: Position = None,
    generate: Generate = None,
    continuation: Continuation = None,
    units: Units = None,
    config: ConfigFile = None,
    trust_remote_code: Remote = False,
    json: Json = False,
    out: Out = None,
    check: Check = False,
    **settings: Any,
) -> None:
    """Explain one prediction, one per line of standard input, or one per token that the model produces."""
    if json and out:
        raise UsageError("`--json` prints and `--out` writes a file: give one of them. `--out map.json` writes JSON.")
    if target is not None and target_token is not None:
        raise UsageError("`--target` and `--target-token` both name the target: give one of them.")
    chosen, _ = Settings.resolve(file=config, **settings)
    inputs = _inputs(text, text_pair, image, lines=lines)
    _check_out(out, len(inputs))
    loading = {"task": task, "pooling": pooling, "trust_remote_code": trust_remote_code}
    wanted = {
        "target": target if target_token is None else target_token,
        "contrast": contrast,
        "first_piece": first_piece or None,
        "position": _index(position),
        "generate": generate,
        "continuation": continuation,
        "units": units,
        "config": config,
    }
    visualizer = _load(model, loading)
    asked = _given({**wanted, **settings})
    maps = _deliver(_explained(visualizer, inputs, asked, rows=json), as_json=json, out=out)
    if check:
        _judge(maps, chosen.threshold)


@_command
def demo(
    *, out: Annotated[Path, typer.Option(metavar="FILE", help="Where the report goes.")] = Path("clearhead-demo.html")
) -> None:
    """Explain a sentence, an image, a translation and a continuation with the models in the box, offline."""
    from clearhead.zoo.examples import EXAMPLES

    _check_out(out, len(EXAMPLES))
    maps = [each for one in EXAMPLES for each in _explained(_load(one.model, {}), [one.input], one.asked)]
    from clearhead import render

    render.show(maps)
    typer.echo(f"\nAll {len(maps)} as a report: {render.save(maps, out)}")


@_command
def config(*, config: ConfigFile = None, **settings: Any) -> None:
    """Print every setting with its value, its meaning and where the value came from."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Plain

    chosen, origins = Settings.resolve(file=config, **settings)
    values, said = chosen.as_dict(), meanings()
    table = Table("setting", "value", "origin", "meaning", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, meaning in said.items():
        table.add_row(*(Plain(cell) for cell in (name, _toml(values[name]), origins[name], meaning)))
    Console().print(table)


# ---- in ------------------------------------------------------------------------------------------------------------


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _index(position: str | None) -> str | int | None:
    """A position by its number, if it is one."""
    return int(position) if position is not None and position.lstrip("-").isdecimal() else position


def _inputs(text: str | None, pair: str | None, image: Path | None, *, lines: bool) -> list[Any]:
    """The texts, images, or pairs of them, to explain, in order."""
    if text is None:
        if image is None or pair is not None or lines:
            raise UsageError("There must be something to explain: give `--text`, `--image`, or both.")
        return [image]
    if image is not None and pair is not None:
        raise UsageError("An image goes with one text: leave out `--text-pair`.")
    texts = _texts(text, pair, lines=lines)
    return [(image, each) for each in texts] if image is not None else texts


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


def _load(model: str, loading: dict[str, Any]) -> AttentionVisualizer:
    with _quiet(), _status(f"loading {Path(model).name}"):
        from clearhead.visualizer import AttentionVisualizer

        return AttentionVisualizer.from_pretrained(model, **loading)


def _explained(
    visualizer: AttentionVisualizer, inputs: Sequence[Any], asked: Mapping[str, Any], *, rows: bool = False
) -> Iterator[Any]:
    """One result after the other, so that a long input streams, with `rows` each map of a generation by itself."""
    for first in range(0, len(inputs), TOGETHER):
        some = inputs[first : first + TOGETHER]
        with _quiet(), _status(f"explaining {first + 1} to {first + len(some)} of {len(inputs)}"):
            found = _together(visualizer, some, asked) if len(some) > 1 else None
        if found is not None:
            yield from (row for each in found for row in (getattr(each, "rows", [each]) if rows else [each]))
            continue
        for n, each in enumerate(some, first + 1):
            place = f"input {n} of {len(inputs)}: " if len(inputs) > 1 else ""
            yield from _one(visualizer, each, asked, rows=rows, place=place)


def _together(visualizer: AttentionVisualizer, some: Sequence[Any], asked: Mapping[str, Any]) -> list[Any] | None:
    """The results for some inputs; None if something is wrong with one of them, which explaining each will tell."""
    try:
        found: list[Any] = visualizer.explain(list(some), **asked)
        return found
    except ClearheadError:
        return None


def _one(
    visualizer: AttentionVisualizer, one: Any, asked: Mapping[str, Any], *, rows: bool, place: str
) -> Iterator[Any]:
    """The result for one input, or its rows as they come; `place` says in an error which input it is about."""
    results = visualizer.stream(one, **asked) if rows else (visualizer.explain(each, **asked) for each in [one])
    while True:
        try:
            with _quiet(), _status("" if "generate" in asked else "explaining"):
                result = next(results, None)
        except ClearheadError as error:
            raise type(error)(f"{place}{error}") from error
        if result is None:
            return
        yield result


# ---- out -----------------------------------------------------------------------------------------------------------


def _check_out(out: Path | None, count: int) -> None:
    """Refuse an output that cannot be written before anything slow starts."""
    if out is not None:
        from clearhead import render

        render.check_writable(out, count=count)


def _deliver(stream: Iterator[Any], *, as_json: bool, out: Path | None) -> list[Any]:
    """Print or write what was asked for, and give the maps back."""
    if as_json:
        return [_printed(each) for each in stream]
    from clearhead import render

    maps = list(stream)
    if out is None:
        render.show(maps)
        return maps
    written = render.save(maps, out)
    for warning in (warning for each in maps for warning in each.warnings):
        _say(f"warning: {warning}")
    _say(f"wrote {written}")
    return maps


def _printed(each: RelevanceMap) -> RelevanceMap:
    """Print a map as one line of JSON."""
    escape = "utf" not in (sys.stdout.encoding or "").lower()
    typer.echo(json.dumps(each.to_dict(), ensure_ascii=escape, allow_nan=False))
    return each


def _judge(maps: Sequence[RelevanceMap | GenerationMap], threshold: float) -> None:
    """Exit with 1 if the books of any map do not balance within the threshold."""
    failed = [n for n, each in enumerate(maps, 1) if not each.conserves(threshold)]
    for n in failed:
        _say(f"check failed: conservation_error {maps[n - 1].conservation_error:.2g} > {threshold:g} (input {n})")
    if failed:
        raise typer.Exit(CHECK_FAILED)


def _say(message: str) -> None:
    typer.echo(message, err=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output for results: libraries that print there, and their progress bars, are sent elsewhere."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _status(message: str) -> Iterator[None]:
    """One moving line on standard error, for a person who waits; nothing when it is not a terminal."""
    if not sys.stderr.isatty() or not message:
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(message)):
        yield


def main() -> None:
    """Run the command line."""
    app()
