"""The commands: flags become one call of the library, its result becomes output."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from clearhead.cli import flags
from clearhead.cli.command import command
from clearhead.cli.explaining import chosen, compared, evaluated, explained, judged, load, looked, validated
from clearhead.cli.inputs import both_of, inputs_of
from clearhead.cli.output import check_out, deliver, judge, one_of
from clearhead.config import THRESHOLDS, Settings, meanings, thresholds
from clearhead.errors import UsageError

BOOKS = ("lrp", "secant", "auto")  # methods that keep books, or may turn out to
UNCUT = 1000  # columns of a table that no terminal cuts: a line for each setting


@command
def explain(
    *,
    model: flags.Model,
    text: flags.Text = None,
    text_pair: flags.TextPair = None,
    image: flags.Image = None,
    lines: flags.Lines = False,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    target: flags.Target = None,
    contrast: flags.Contrast = None,
    target_token: flags.TargetToken = None,
    first_piece: flags.FirstPiece = False,
    position: flags.Position = None,
    generate: flags.Generate = None,
    continuation: flags.Continuation = None,
    baseline: flags.Baseline = None,
    units: flags.Units = None,
    config: flags.ConfigFile = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
    check: flags.Check = False,
    **settings: Any,
) -> None:
    """Explain one prediction, one per line of standard input, or one per token that the model produces."""
    one_of(json, out, "map.json")
    if target is not None and target_token is not None:
        raise UsageError("`--target` and `--target-token` both name the target: give one of them.")
    ruled, _ = Settings.resolve(file=config, **settings)
    if check and ruled.method not in BOOKS:
        raise UsageError(f"`--check` asks whether books balance; the method {ruled.method} keeps none. Leave it out.")
    inputs = inputs_of(text, text_pair, image, lines=lines)
    check_out(out, len(inputs))
    wanted = {
        "target": target if target_token is None else target_token,
        "contrast": contrast,
        "first_piece": first_piece or None,
        "position": flags.number(position),
        "generate": generate,
        "continuation": continuation,
        "baseline": flags.single(baseline),
        "units": units,
        "config": config,
    }
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    asked = flags.given({**wanted, **settings})
    maps = deliver(explained(visualizer, inputs, asked, rows=json), as_json=json, out=out)
    if check:
        judge(maps, ruled.threshold)


@command
def compare(
    *,
    model: flags.Model,
    text: flags.Text = None,
    other: flags.Other = None,
    text_pair: flags.TextPair = None,
    other_pair: flags.OtherPair = None,
    image: flags.Image = None,
    other_image: flags.OtherImage = None,
    by_position: flags.ByPosition = False,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    target: flags.Target = None,
    contrast: flags.Contrast = None,
    position: flags.Position = None,
    continuation: flags.Whole = None,
    first_piece: flags.FirstPiece = False,
    config: flags.ConfigFile = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
) -> None:
    """Say what changed: two inputs side by side, and what each difference adds to that of the prediction."""
    one_of(json, out, "map.json")
    both = both_of((text, text_pair, image), (other, other_pair, other_image))
    check_out(out, 1)
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    wanted = {"target": target, "contrast": contrast, "position": flags.number(position), "continuation": continuation}
    more = {"first_piece": first_piece or None, "by_position": by_position or None, "config": config}
    deliver(compared(visualizer, both, flags.given({**wanted, **more})), as_json=json, out=out)


@command
def attention(
    *,
    model: flags.Model,
    text: flags.Text = None,
    text_pair: flags.TextPair = None,
    image: flags.Image = None,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    generate: flags.Generate = None,
    continuation: flags.Continuation = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
) -> None:
    """Show what every layer and head looked at while the model read one input, or while it wrote."""
    one_of(json, out, "maps.json")
    (one,) = inputs_of(text, text_pair, image, lines=False)
    check_out(out, 1)
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    asked = flags.given({"generate": generate, "continuation": continuation})
    deliver(looked(visualizer, one, asked), as_json=json, out=out)


@command
def heads(
    *,
    model: flags.Model,
    data: flags.Data,
    of: flags.Of = None,
    absolute: flags.Absolute = None,
    normalise: flags.Normalise = False,
    prune: flags.Prune = False,
    resume: flags.Resume = None,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
) -> None:
    """Say which heads matter over many texts or images, what they look at, and what happens without them."""
    one_of(json, out, "heads.json")
    check_out(out, 1, heads=True)
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    asked = flags.given({"of": of, "absolute": absolute, "normalise": normalise or None})
    deliver(judged(visualizer, data, asked, prune=prune, resume=resume), as_json=json, out=out)


@command
def validate(
    *,
    model: flags.Model,
    text: flags.Text = None,
    text_pair: flags.TextPair = None,
    image: flags.Image = None,
    methods: flags.Methods = None,
    removals: flags.Removals = None,
    against: flags.Against = None,
    no_sanity: flags.NoSanity = False,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    target: flags.Target = None,
    contrast: flags.Contrast = None,
    position: flags.Position = None,
    generate: flags.Generate = None,
    continuation: flags.Continuation = None,
    baseline: flags.Baseline = None,
    config: flags.ConfigFile = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
) -> None:
    """Say how far explanations of one prediction can be trusted: methods compared, units removed, a verdict each."""
    one_of(json, out, "validation.json")
    (one,) = inputs_of(text, text_pair, image, lines=False)
    check_out(out, 1, heads=True)
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    wanted = {"target": target, "contrast": contrast, "position": flags.number(position), "generate": generate}
    more = {"continuation": continuation, "baseline": flags.single(baseline), "config": config}
    how = {"methods": flags.listed(methods), "removals": flags.listed(removals), "against": against}
    asked = flags.given({**wanted, **more, **how, "sanity": False if no_sanity else None})
    deliver(validated(visualizer, one, asked), as_json=json, out=out)


@command
def evaluate(
    *,
    model: flags.Model,
    data: flags.Data,
    methods: flags.Methods = None,
    removals: flags.Removals = None,
    against: flags.Against = None,
    no_sanity: flags.NoSanity = False,
    limit: flags.Limit = None,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    target: flags.Target = None,
    contrast: flags.Contrast = None,
    baseline: flags.Baseline = None,
    config: flags.ConfigFile = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
) -> None:
    """Say how far methods can be trusted on a data set: means with intervals, paired tests, and a verdict each."""
    one_of(json, out, "evaluation.json")
    check_out(out, 1, heads=True)
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    wanted = {"target": target, "contrast": contrast, "baseline": flags.single(baseline), "config": config}
    how = {"methods": flags.listed(methods), "removals": flags.listed(removals), "against": against, "limit": limit}
    asked = flags.given({**wanted, **how, "sanity": False if no_sanity else None})
    deliver(evaluated(visualizer, data, asked), as_json=json, out=out)


@command
def choose(
    *,
    model: flags.Model,
    data: flags.Data,
    seconds: flags.Seconds = 60.0,
    task: flags.Task = None,
    pooling: flags.Pooling = None,
    target: flags.Target = None,
    contrast: flags.Contrast = None,
    baseline: flags.Baseline = None,
    config: flags.ConfigFile = None,
    device_map: flags.DeviceMap = None,
    trust_remote_code: flags.Remote = False,
    json: flags.Json = False,
    out: flags.Out = None,
) -> None:
    """Find the method that explains a model most faithfully for its price; `explain --method auto` then takes it."""
    one_of(json, out, "choice.json")
    check_out(out, 1, heads=True)
    visualizer = load(model, task, pooling, device_map, remote=trust_remote_code)
    asked = {"target": target, "contrast": contrast, "baseline": flags.single(baseline), "config": config}
    deliver(chosen(visualizer, data, flags.given({**asked, "seconds": seconds})), as_json=json, out=out)


@command
def demo(
    *, out: Annotated[Path, typer.Option(metavar="FILE", help="Where the report goes.")] = Path("clearhead-demo.html")
) -> None:
    """Explain a sentence, an image, a translation and a continuation with the models in the box, offline."""
    from clearhead.zoo.examples import EXAMPLES

    check_out(out, len(EXAMPLES))
    maps = [each for one in EXAMPLES for each in explained(load(one.model), [one.input], one.asked)]
    from clearhead import render

    render.show(maps)
    typer.echo(f"\nAll {len(maps)} as a report: {render.save(maps, out)}")


@command
def config(*, config: flags.ConfigFile = None, **settings: Any) -> None:
    """Print every setting with its value, its meaning and where the value came from."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Plain

    chosen, origins = Settings.resolve(file=config, **settings)
    values, said = chosen.as_dict(), meanings()
    table = Table("setting", "value", "origin", "meaning", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, meaning in said.items():
        table.add_row(*(Plain(cell) for cell in (name, flags.toml(values[name]), origins[name], meaning)))
    for row in turning(config):
        table.add_row(*map(Plain, row))
    Console(width=None if sys.stdout.isatty() else UNCUT).print(table)


@command
def rules(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print the rules and presets as one JSON object.")] = False
) -> None:
    """List the rules of lrp: what each does, when to use it, whether it conserves, what it costs; and the presets."""
    import json

    from rich.console import Console

    from clearhead.cli import rules as listed

    if as_json:
        typer.echo(json.dumps(listed.data(), ensure_ascii=True))
        return
    console = Console(width=None if sys.stdout.isatty() else UNCUT)
    for table in listed.tables():
        console.print(table)


def turning(file: str | None) -> list[tuple[str, str, str, str]]:
    """A row for each threshold of a verdict: its name, value, origin and meaning."""
    from clearhead.validations import Thresholds

    known, own = Thresholds.meanings(), thresholds(file) if file else {}
    values = asdict(Thresholds.named(own))
    origin = {name: f"file {file}" if name in own else "default" for name in known}
    return [
        (f"{THRESHOLDS}.{name}", flags.toml(values[name]), origin[name], meaning) for name, meaning in known.items()
    ]
