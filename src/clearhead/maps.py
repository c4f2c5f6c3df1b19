"""Results: frozen, numpy, labelled, and aware of where they came from. Nothing here knows torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import OutputError, UsageError
from clearhead.units import Span, Unit, holder, sentences

if TYPE_CHECKING:
    import pandas

SCHEMA = 1
ROUNDING_STEPS = 8  # how many roundings of the largest intermediate a sum over a whole network may be off by


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """Relevance that one operation in one module did not pass on, and whether it was handed back to its input."""

    cause: str
    module: str
    operation: str
    relevance: float
    returned: bool


@dataclass(frozen=True, kw_only=True)
class Target:
    """The scalar that is explained, in words: `kind` class, difference, similarity, token, sequence, callable, ...

    `position` says where, for models that answer at every position: the place of a token among the units, or of a
    produced token among those produced.
    """

    kind: str
    label: str
    index: int | None = None
    contrast: str | None = None
    position: int | None = None

    def __str__(self) -> str:
        return f"{self.label} against {self.contrast}" if self.contrast else self.label


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that is needed to make the map again."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    dtype: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict)
    model_fingerprint: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class RelevanceMap:
    r"""How much each unit contributed to one prediction, with the books.

    $f(x) = \text{base\_value} + \sum_i R_i + \sum(\text{sinks that were not returned}) + \text{residual}$.
    `relevance` has one float64 per unit, in the unit of `value` (logits, or cosine similarity). Methods that look at
    attention or activations give shares or scores instead, which claim no sum: `additive` is False. `notes` say how
    the map was made where that is a choice, `cross_check` how far another method agrees. `texts` and `pictures` hold
    what the model read, by stream; a picture is a PNG as a `data:` address, as the model saw it.

    >>> from clearhead import RelevanceMap, Target, Unit
    >>> units = (Unit(index=0, text="fine"), Unit(index=1, text="film"))
    >>> m = RelevanceMap(
    ...     method="lrp",
    ...     model="toy",
    ...     task="text-classification",
    ...     units=units,
    ...     target=Target(kind="class", label="positive"),
    ...     value=2.0,
    ...     relevance=[1.5, 0.5],
    ... )
    >>> m.conservation_error
    0.0
    """

    method: str
    model: str
    task: str
    target: Target
    value: float
    units: tuple[Unit, ...]
    relevance: NDArray[np.float64]
    base_value: float = 0.0
    ledger: tuple[LedgerEntry, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    additive: bool = True
    recipe: Recipe = field(default_factory=Recipe)
    cross_check: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        relevance = np.array(self.relevance, dtype=np.float64)
        if relevance.shape != (len(self.units),):
            raise UsageError(
                f"A map needs one relevance per unit; found {relevance.shape} for {len(self.units)} units."
            )
        relevance.setflags(write=False)
        object.__setattr__(self, "relevance", relevance)

    # ---- the books ---------------------------------------------------------------------------------------------

    @property
    def sinks(self) -> float:
        """The sum of all relevance that leaked and was not returned, in the unit of `value`."""
        return float(sum(entry.relevance for entry in self.ledger if not entry.returned))

    @property
    def conservation_error(self) -> float:
        r"""$|\text{base\_value} + \sum_i R_i - f(x)| / |f(x)|$, relative, dimensionless."""
        return self._relative(self._gap)

    @property
    def residual(self) -> float:
        r"""$|f(x) - \text{base\_value} - \sum_i R_i - \sum \text{sinks}| / |f(x)|$: do the books balance at all."""
        return self._relative(self._gap + self.sinks)

    @property
    def cancellation(self) -> float:
        r"""$\sum_i |R_i| / |f(x)|$: large values mean that positive and negative relevance cancel."""
        return self._relative(float(np.abs(self.relevance).sum()))

    @property
    def rounding_floor(self) -> float:
        r"""What rounding alone can move the books by: 8 epsilon of the model's float type times $\sum_i|R_i|$."""
        return ROUNDING_STEPS * _machine_epsilon(self.recipe.dtype) * float(np.abs(self.relevance).sum())

    def conserves(self, threshold: float = 1e-4) -> bool:
        r"""True if $|\text{base} + \sum R - f| \le \max(\text{threshold}\,|f|, \text{rounding floor})$."""
        return math.isfinite(self._gap) and abs(self._gap) <= max(threshold * abs(self.value), self.rounding_floor)

    @property
    def _gap(self) -> float:
        return self.base_value + float(self.relevance.sum()) - self.value

    def _relative(self, amount: float) -> float:
        return abs(amount) / abs(self.value) if self.value else (0.0 if amount == 0 else float("inf"))

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams, in the order in which their units stand."""
        return tuple(dict.fromkeys(unit.stream for unit in self.units))

    def top(self, k: int = 5, *, special: bool = False) -> list[tuple[Unit, float]]:
        """The `k` units of largest absolute relevance, largest first; special tokens only when asked for."""
        order = np.argsort(-np.abs(self.relevance), kind="stable")
        chosen = [i for i in order if special or not self.units[i].special]
        return [(self.units[i], float(self.relevance[i])) for i in chosen[:k]]

    def words(self) -> RelevanceMap:
        """The same map with the tokens of each word summed into one unit, so that it still adds up."""
        return self._grouped([None if unit.word is None else ("word", unit.word) for unit in self.units])

    def sentences(self) -> RelevanceMap:
        """The same map with the tokens of each sentence summed into one unit; special tokens stay as they are."""
        held = {stream: sentences(text) for stream, text in self.texts.items()}
        return self._grouped([_first(held.get(unit.stream, []), unit) for unit in self.units])

    def spans(self, spans: Sequence[Span], *, stream: str | None = None) -> RelevanceMap:
        """The same map with the units of each span (character offsets, end exclusive) summed into one.

        `stream` says which text is meant; by default the only one. Units outside of all spans stay as they are.
        Raises UsageError for a span that holds no unit, and for two that share one.
        """
        name = self._text_stream(stream)
        for span in spans:
            if len(_whole_numbers(span)) != 2:
                raise UsageError(f"A span is a first and a last character, such as (0, 12); found {span!r}.")
        found: list[object] = [None] * len(self.units)
        for i, unit in enumerate(self.units):
            if unit.stream != name or unit.special or unit.start is None or unit.end is None:
                continue
            inside = holder(spans, *_visible(unit.text, unit.start, unit.end))
            if len(inside) > 1:
                raise UsageError(
                    f"A unit belongs to one span; {unit.text!r} (characters {unit.start} to {unit.end}) lies in "
                    f"{' and '.join(str(tuple(spans[n])) for n in inside)}. Move the boundary between them."
                )
            found[i] = inside[0] if inside else None
        empty = next((tuple(span) for n, span in enumerate(spans) if n not in found), None)
        if empty is not None:
            raise UsageError(
                f"A span holds at least one unit; {empty} of {name!r} holds none. The text has "
                f"{len(self.texts.get(name, ''))} characters."
            )
        return self._grouped(found)

    def _text_stream(self, stream: str | None) -> str:
        named = [each for each in self.streams if each in self.texts]
        if stream is None and len(named) == 1:
            return named[0]
        if stream not in named:
            raise UsageError(
                f"`stream` must be one of {', '.join(named) or '(no stream of this map is a text)'}; found {stream!r}."
            )
        return stream

    def _grouped(self, keys: Sequence[object]) -> RelevanceMap:
        """Sum the units of a stream that have the same key; a unit whose key is None stays alone."""
        groups: dict[tuple[str, object], list[int]] = {}
        for i, (unit, key) in enumerate(zip(self.units, keys, strict=True)):
            groups.setdefault((unit.stream, ("alone", i) if key is None else ("with", key)), []).append(i)
        units = tuple(self._merged(n, members) for n, members in enumerate(groups.values()))
        return replace(self, units=units, relevance=np.array([self.relevance[m].sum() for m in groups.values()]))

    def renamed(self, units: Sequence[Unit]) -> RelevanceMap:
        """The same numbers with other units; raises UsageError if there are not as many."""
        return replace(self, units=tuple(units))

    def _merged(self, index: int, members: list[int]) -> Unit:
        first, last = self.units[members[0]], self.units[members[-1]]
        if len(members) == 1:
            return replace(first, index=index)
        whole = self.texts.get(first.stream)
        if whole is not None and first.start is not None and last.end is not None:
            start, _ = _visible(whole[first.start : last.end], first.start, last.end)
            return replace(first, index=index, text=whole[start : last.end], start=start, end=last.end)
        return replace(first, index=index, text="".join(self.units[i].text for i in members), end=last.end)

    # ---- leaving -----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The map as plain data in the published schema; `from_dict` gives the same map back."""
        units = [{**described(u), "relevance": float(r)} for u, r in zip(self.units, self.relevance, strict=True)]
        return {
            "schema": SCHEMA,
            "method": self.method,
            "model": self.model,
            "task": self.task,
            "target": asdict(self.target),
            "value": self.value,
            "base_value": self.base_value,
            "texts": dict(self.texts),
            "pictures": dict(self.pictures),
            "units": units,
            "conservation_error": _finite(self.conservation_error),
            "residual": _finite(self.residual),
            "cancellation": _finite(self.cancellation),
            "ledger": [asdict(entry) for entry in self.ledger],
            "cross_check": dict(self.cross_check) if self.cross_check is not None else None,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "additive": self.additive,
            "recipe": _plain(asdict(self.recipe)),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RelevanceMap:
        """The map that `to_dict` wrote; raises UsageError for another schema."""
        if not isinstance(data, Mapping):
            raise UsageError(f"A map is a JSON object; found a {type(data).__name__}. Read a list of maps one by one.")
        if "rows" in data:
            raise UsageError("This is a generation, a map per produced token. It is read by GenerationMap.")
        if "slots" in data:
            raise UsageError("This is a comparison, a slot per unit of two inputs. It is read by Comparison.")
        if data.get("schema") != SCHEMA:
            raise UsageError(
                f"This version reads schema {SCHEMA}; found {data.get('schema')!r}. Explain again to renew it."
            )
        units = [dict(u) for u in data["units"]]
        relevance = np.array([u.pop("relevance") for u in units], dtype=np.float64)
        return cls(
            method=data["method"],
            model=data["model"],
            task=data["task"],
            target=Target(**data["target"]),
            value=data["value"],
            base_value=data["base_value"],
            units=tuple(unit_of(u) for u in units),
            relevance=relevance,
            ledger=tuple(LedgerEntry(**entry) for entry in data["ledger"]),
            texts=dict(data["texts"]),
            pictures=dict(data.get("pictures", {})),
            warnings=tuple(data["warnings"]),
            notes=tuple(data.get("notes", ())),
            additive=bool(data.get("additive", True)),
            recipe=Recipe(**data["recipe"]),
            cross_check=data["cross_check"],
        )

    def to_frame(self) -> pandas.DataFrame:
        """One row per unit as a pandas data frame (pandas is not a dependency: it must be installed)."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError("`to_frame` needs pandas, which is not installed. Run: pip install pandas") from error
        return pandas.DataFrame(self.to_dict()["units"])

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless), `.html`, `.png` or `.svg`; nothing is left half-written."""
        from clearhead import render

        return render.save([self], path)

    @classmethod
    def load(cls, path: str | Path) -> RelevanceMap:
        """Read a map that `save` wrote as `.json`; raises OutputError if it cannot be read."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"A saved map is a JSON file; {path} cannot be read as one: {error}.") from error
        try:
            return cls.from_dict(data)
        except (KeyError, TypeError) as error:
            raise OutputError(f"{path} is not a saved map: {type(error).__name__}: {error}.") from error

    def show(self) -> None:
        """Print the map to the terminal: coloured tokens, a bar per token, the ledger."""
        from clearhead import render

        render.show([self])

    def _repr_html_(self) -> str:
        from clearhead import render

        return render.fragment([self])

    def __repr__(self) -> str:
        top = ", ".join(f"{unit.text} {value:+.3f}" for unit, value in self.top(3))
        books = f"conservation_error {self.conservation_error:.1e}" if self.additive else "no books"
        return (
            f"<RelevanceMap {self.method} of {self.target} = {self.value:.4f}: {len(self.units)} units, {books}; {top}>"
        )


def _first(spans: Sequence[Span], unit: Unit) -> int | None:
    """The number of the span in which a unit begins, the space before it left out."""
    if unit.special or unit.start is None:
        return None
    start, _ = _visible(unit.text, unit.start, unit.end or unit.start)
    return next(iter(holder(spans, start, start)), None)


def _whole_numbers(span: object) -> Sequence[int]:
    """The numbers of what should be a span."""
    members = span if isinstance(span, (tuple, list)) else ()
    return [each for each in members if isinstance(each, int) and not isinstance(each, bool)]


def _visible(text: str, start: int, end: int) -> Span:
    """Where a text from `start` to `end` lies without the space before and behind it, if it is not all space."""
    if len(text) != end - start or not text.strip():
        return start, end
    return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())


def described(unit: Unit) -> dict[str, Any]:
    """A unit as plain data: offsets for a part of a text, a box for a part of an image."""
    left_out = ("start", "end", "word") if unit.box else ("box",)
    return {name: value for name, value in asdict(unit).items() if name not in left_out}


def unit_of(data: Mapping[str, Any]) -> Unit:
    """The unit that `described` made plain; raises TypeError for what is none."""
    box = data.get("box")
    if box is not None and (len(box) != 4 or len(_whole_numbers(box)) != 4):
        raise TypeError(f"a box is four whole numbers; found {box!r}")
    return Unit(**{**data, "box": tuple(box) if box is not None else None})


def _finite(figure: float) -> float | None:
    """JSON knows no infinity: a figure relative to a value of 0 is null."""
    return figure if math.isfinite(figure) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _machine_epsilon(dtype: str) -> float:
    return {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, 2.0**-23)
