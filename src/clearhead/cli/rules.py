"""The rules and presets of lrp as tables, or as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from clearhead.cli.flags import toml
from clearhead.config import Settings
from clearhead.rulebook import INPUT_RULES, PRESETS, RESIDUAL, RULEBOOK, Described

LAYERS, INPUT, SUMS = "rule of layers", "rule of the layer that reads the input", "residual_rule"


def data() -> dict[str, Any]:
    """The rules and presets as plain data."""
    rules = [{"rule": name, "of": _of(name), **asdict(each)} for name, each in RULEBOOK.items()]
    return {
        "rules": rules,
        "residual_rules": [{"rule": name, **asdict(each)} for name, each in RESIDUAL.items()],
        "presets": [{"preset": name, **asdict(each)} for name, each in PRESETS.items()],
    }


def tables() -> list[Table]:
    """A table of rules for each place that they have, and one of presets."""
    layers, first = ({name: each for name, each in RULEBOOK.items() if _of(name) == of} for of in ("layers", "input"))
    return [_rules(LAYERS, layers), _rules(INPUT, first), _rules(SUMS, RESIDUAL), _presets()]


def _of(name: str) -> str:
    return "input" if name in INPUT_RULES else "layers"


def _rules(title: str, rules: Mapping[str, Described]) -> Table:
    table = Table(title, "formula", "when to use it", "conserves", "cost", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, each in rules.items():
        numbers = "".join(f"\n{key} = {toml(_usual(key))}" for key in each.takes)
        cells = (f"{name}{numbers}", f"{each.formula}\n({each.source})", each.use, each.conserves, each.cost)
        table.add_row(*map(Text, cells))
    return table


def _usual(key: str) -> Any:
    """The default of a number; the ends of a range are those of images."""
    value = getattr(Settings(), key)
    return "as images have it" if value is None else value


def _presets() -> Table:
    table = Table("preset", "what it implies", "settings", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, each in PRESETS.items():
        settings = "\n".join(f"{key} = {toml(value)}" for key, value in each.settings.items())
        table.add_row(*map(Text, (name, each.implies, settings)))
    return table
