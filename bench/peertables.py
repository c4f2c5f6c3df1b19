"""The report of bench.peers: ratios and tables from what was measured; no torch, nothing is run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

GRADIENT = "forward + gradient"
INTEGRATED = "integrated gradients, 20 steps"
ONE_BATCH = f"{INTEGRATED}, one batch"
Cells = dict[str, Any]  # "part shape length" -> rows, load, versions, weights
OURS = f"clearhead: {GRADIENT}"


@dataclass(frozen=True)
class Bar:
    """What is asked for: the ratio of two rows, at most so much; without a limit it is only told."""

    name: str
    part: str
    row: str
    against: str
    limit: float | None = None


BARS = (
    Bar("`attnlrp`, the pass alone / forward + gradient", "time", "clearhead: attnlrp", OURS, 1.05),
    Bar("`attnlrp` by `explain` / forward + gradient", "time", "clearhead: explain, attnlrp", OURS, 1.05),
    Bar("default by `explain` / forward + gradient", "time", "clearhead: explain, default", OURS, 1.15),
    Bar("clearhead `attnlrp` / LXT, time", "time", "clearhead: attnlrp", "lxt: attnlrp", 1.00),
    Bar("LXT / its own forward + gradient", "time", "lxt: attnlrp", f"lxt, unpatched: {GRADIENT}"),
    Bar("forward + gradient: ours / LXT's environment", "time", OURS, f"lxt, unpatched: {GRADIENT}"),
    Bar("clearhead default / captum, 20 steps", "time", "clearhead: explain, default", f"captum: {INTEGRATED}", 0.125),
    Bar("peak of `attnlrp` / forward + gradient", "memory", "clearhead: attnlrp", OURS, 1.10),
    Bar("peak of `attnlrp` by `explain`", "memory", "clearhead: explain, attnlrp", OURS, 1.10),
    Bar("peak of default by `explain`", "memory", "clearhead: explain, default", OURS, 1.10),
    Bar("peak of LXT / its own forward + gradient", "memory", "lxt: attnlrp", f"lxt, unpatched: {GRADIENT}"),
)
TOY_LIMIT = 3.0  # ms above forward + gradient
TOY_ROWS = ("tape without rules", "attnlrp", "default, pass alone", "explain, attnlrp", "explain, default")


def ratio(rows: Mapping[str, Any], row: str, against: str) -> tuple[float, float, float] | str:
    """Median and quartiles over rounds of one row divided by another in the same round; or why there is none."""
    for each in (row, against):
        if not isinstance(rows.get(each, []), (list, float, int)):
            return str(rows[each])
    a, b = (listed(rows.get(each, [])) for each in (row, against))
    found = sorted(x / y for x, y in zip(a, b, strict=False) if y > 0)
    if not found:
        return "not measured"
    low, high = (found[0], found[-1]) if len(found) < 4 else quartiles(found)
    return statistics.median(found), low, high


def listed(value: Any) -> list[float]:
    """A number as a list of one."""
    return list(value) if isinstance(value, list) else [float(value)]


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third."""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def shown(found: tuple[float, float, float] | str) -> str:
    """A ratio with its quartiles, or a dash."""
    if isinstance(found, str):
        return "-"
    middle, low, high = found
    digits = 3 if middle < 0.2 else 2
    return f"{middle:.{digits}f}" if low == high else f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def met(bar: Bar, found: Sequence[tuple[float, float, float] | str]) -> str:
    """In how many of the measured cells the bar is met."""
    if bar.limit is None:
        return ""
    known = [each[0] for each in found if not isinstance(each, str)]
    return f"{sum(round(each, 3) <= bar.limit for each in known)} of {len(known)}" if known else "-"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bars(cells: Cells, places: Sequence[tuple[str, int]]) -> str:
    """Each bar in each cell."""
    lines = []
    for bar in BARS:
        found = [ratio(rows_of(cells, bar.part, *place), bar.row, bar.against) for place in places]
        limit = "" if bar.limit is None else f"{bar.limit:.3g}" if bar.limit < 1 else f"{bar.limit:.2f}"
        lines.append([bar.name, limit, *map(shown, found), met(bar, found)])
    return table(["", "at most", *(f"{shape}, {length}" for shape, length in places), "met"], lines)


def rows_of(cells: Cells, part: str, shape: str, length: int) -> dict[str, Any]:
    """What was measured in a cell."""
    found: dict[str, Any] = cells.get(f"{part} {shape} {length}", {}).get("rows", {})
    return found


def amounts(cells: Cells, part: str, places: Sequence[tuple[str, int]]) -> str:
    """Medians of milliseconds, or megabytes, of every row."""
    found = {place: rows_of(cells, part, *place) for place in places}
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))

    def cell(value: Any) -> str:
        if value is None or isinstance(value, str) or value == []:
            return "-"
        several = f" [{len(value)}]" if isinstance(value, list) and len(value) < 4 else ""
        return f"{statistics.median(listed(value)):.0f}{several}"

    lines = [[name, *(cell(rows.get(name)) for rows in found.values())] for name in names]
    return table(["", *starmap("{}, {}".format, places)], lines)


def ranks(values: Sequence[float]) -> list[float]:
    """The place of each value; equal ones share the mean place."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for k in range(start, end + 1):
            found[order[k]] = (start + end) / 2
        start = end + 1
    return found


def agreement(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Spearman's rank correlation, sum |a - b| / sum |a|, and the largest |a - b| / max |a|."""
    a, b = ranks(mine), ranks(theirs)
    gaps = [abs(x - y) for x, y in zip(mine, theirs, strict=True)]
    rho = statistics.correlation(a, b)
    return rho, sum(gaps) / sum(map(abs, mine)), max(gaps) / max(map(abs, mine))


def agreements(cells: Cells) -> str:
    """How far libraries give the same numbers."""
    lines = []
    for key, cell in cells.items():
        part, shape, length = key.split()
        if part != "agreement":
            continue
        rows = cell["rows"]
        mine = next(name for name in rows if name.startswith("clearhead") and GRADIENT not in name)
        for other, values in rows.items():
            if other in {mine, OURS}:
                continue
            if isinstance(values, str) or isinstance(rows[mine], str):
                lines.append([f"{shape}, {length}", mine, other, "-", "-", "-"])
                continue
            rho, total, worst = agreement(rows[mine], values)
            lines.append([f"{shape}, {length}", mine, other, f"{rho:.4f}", f"{total:.1e}", f"{worst:.1e}"])
    return table(["", "", "against", "rank correlation", "sum of differences", "largest difference"], lines)


def toy(cells: Cells) -> str:
    """Milliseconds above forward + gradient on a model of two layers."""
    rows = rows_of(cells, "toy", "toy", 8)
    lines = []
    for name in TOY_ROWS:
        times, base = rows.get(f"clearhead: {name}"), rows.get(OURS)
        if not isinstance(times, list) or not isinstance(base, list) or not times:
            continue
        above = [x - y for x, y in zip(times, base, strict=False)]
        low, high = quartiles(above)
        middle = statistics.median(above)
        lines.append([name, f"{middle:.2f} ({low:.2f} to {high:.2f})", "yes" if middle <= TOY_LIMIT else "no"])
    return table(["", "ms above forward + gradient", f"at most {TOY_LIMIT:.0f} ms"], lines)


def stacks(cells: Cells, shapes: Sequence[str]) -> str:
    """The epsilon rule on plain modules, each library against its own forward + gradient, and one against the other."""
    lines = []
    for shape in shapes:
        rows = rows_of(cells, "time", shape, 128)
        pairs = [(f"{each}: epsilon", f"{each}: {GRADIENT}") for each in ("clearhead", "zennit")]
        pairs.append(("clearhead: epsilon", "zennit: epsilon"))
        lines.append([shape, *(shown(ratio(rows, *pair)) for pair in pairs)])
    return table(["", "clearhead / its gradient", "zennit / its gradient", "clearhead / zennit"], lines)


def versions(cells: Cells) -> str:
    """What each worker ran."""
    found: dict[str, dict[str, str]] = {}
    for cell in cells.values():
        found.update(cell["versions"])
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    return table(["worker", *names], [[worker, *(each.get(n, "") for n in names)] for worker, each in found.items()])


def missing(cells: Cells) -> str:
    """What could not be measured, with the reason."""
    lines = []
    for key, cell in cells.items():
        for name, value in cell["rows"].items():
            if isinstance(value, str):
                lines.append([key, name, value.replace("|", "/").replace("\n", " ")[:200]])
    return table(["where", "what", "why"], lines) if lines else "Nothing failed."


def report(cells: Cells, shapes: Sequence[str], lengths: Sequence[int], head: str) -> str:
    """The whole report in Markdown."""
    places = [(shape, length) for shape in shapes for length in lengths]
    loads = [cell["load"] for cell in cells.values()]
    busy = f"; load average {min(loads):.1f} to {max(loads):.1f} while measuring" if loads else ""
    weights = {
        shape: {round(w, 3) for k, c in cells.items() if f" {shape} " in k for w in c["weights"].values()}
        for shape in shapes
    }
    same = all(len(each) <= 1 for each in weights.values())
    parts = [
        f"# Clearhead beside its peers, {head}{busy}",
        "`python -m bench.peers`. Random weights, 12 layers, 768 wide, one sequence of T tokens, float32 on the CPU. "
        "Each figure is the median over rounds of the ratio within a round, with quartiles (below 4 rounds: the "
        "extremes); every worker runs in its own process, all of them in turns. "
        f"The weights of all workers are {'the same' if same else 'NOT the same: ' + str(weights)}.",
        "## Bars",
        bars(cells, places),
        "Milliseconds [rounds where fewer than 4]:",
        amounts(cells, "time", places),
        "Megabytes by which a call raises the peak of its process, with freed blocks given back at once:",
        amounts(cells, "memory", places),
        "## Fixed cost: 2 layers, 32 wide, T = 8",
        toy(cells),
        "## Torch's own modules: zennit",
        "Its rules are for modules such as `nn.Linear` and know neither attention nor layer norm, so it is measured "
        "with its epsilon rule (1e-6) on 12 blocks of 768 - 3072 - 768 with ReLU, 128 rows, and on 8 convolutions, "
        "4 images.",
        stacks(cells, ("MLP", "CNN")),
        "## Do the numbers agree",
        "Relevance per position; LXT's is of word embeddings alone, so ours is too. Differences are relative to the "
        "sum, and to the largest, of our absolute values. Gradient times input is there to show what no agreement "
        "looks like.",
        agreements(cells),
        "## Versions",
        versions(cells),
        "## What could not be measured",
        missing(cells),
    ]
    return "\n\n".join(parts) + "\n"
