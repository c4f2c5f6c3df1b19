"""The command line."""

from __future__ import annotations

from clearhead.cli import commands
from clearhead.cli.command import app
from clearhead.cli.flags import POOLINGS, TASKS, UNITS

__all__ = ["POOLINGS", "TASKS", "UNITS", "app", "commands", "main"]


def main() -> None:
    """Run the command line."""
    app()
