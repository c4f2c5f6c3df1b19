"""From functions to commands: errors become one message and an exit code."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from clearhead.cli.flags import setting_flags, spelled
from clearhead.errors import ClearheadError

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

Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function as a command: `**settings` becomes the setting flags, errors become exit codes."""
    signature = inspect.signature(function, eval_str=True)
    parameters = list(signature.parameters.values())
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        parameters[-1:] = setting_flags()

    @functools.wraps(function)
    def run(**given: Any) -> None:
        try:
            function(**spelled(given))
        except ClearheadError as error:
            say(f"clearhead: {error}")
            raise typer.Exit(USAGE) from error
        except (typer.Exit, typer.Abort, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:
            traceback.print_exc()
            say("clearhead: this is a bug in clearhead; please report it with the lines above.")
            raise typer.Exit(BUG) from error

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(run)


@app.callback()
def _start(*, version: Version = False) -> None:
    """Explains the predictions of transformers, and shows that its books balance."""


def say(message: str) -> None:
    """One line on standard error."""
    typer.echo(message, err=True)
