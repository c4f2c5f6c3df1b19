"""The relevance of everything a model produced: one map per produced token, together a matrix."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import OutputError, UsageError
from clearhead.maps import SCHEMA, LedgerEntry, Recipe, RelevanceMap
from clearhead.units import Span, Unit


@dataclass(frozen=True, kw_only=True, eq=False)
class GenerationMap:
    r"""How much each unit contributed to each produced token: row t, column i is $R_i$ of the score of token t.

    `rows` holds a map per produced token, with books of its own; its units are what that token was produced from, so
    the units of an earlier row are the first of those of a later one.

    >>> from clearhead import Target, Unit
    >>> def row(t, relevance):
    ...     units = tuple(Unit(index=i, text="abc"[i]) for i in range(len(relevance)))
    ...     target = Target(kind="token", label="bcd"[t], position=t)
    ...     about = dict(method="lrp", model="toy", task="causal-lm")
    ...     return RelevanceMap(**about, units=units, target=target, value=sum(relevance), relevance=relevance)
    >>> g = GenerationMap(rows=(row(0, [1.0]), row(1, [0.5, 2.0])))
    >>> g.tokens, g.relevance.tolist()
    (('b', 'c'), [[1.0, nan], [0.5, 2.0]])
    """

    rows: tuple[RelevanceMap, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise UsageError("A generation has at least one produced token; found none.")
        longest = self.units
        if any(row.units != longest[: len(row.units)] for row in self.rows):
            raise UsageError("The units of each row must be the first of those of the last; explain them together.")

    # ---- the matrix --------------------------------------------------------------------------------------------

    @property
    def units(self) -> tuple[Unit, ...]:
        """The columns: all units that any produced token depends on."""
        return max((row.units for row in self.rows), key=len)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The produced tokens, one per row."""
        return tuple(row.target.label for row in self.rows)

    @property
    def relevance(self) -> NDArray[np.float64]:
        """The matrix [rows, units]; NaN where a unit had not been produced yet."""
        matrix = np.full((len(self.rows), len(self.units)), np.nan)
        for line, row in zip(matrix, self.rows, strict=True):
            line[: len(row.relevance)] = row.relevance
        return matrix

    @property
    def value(self) -> NDArray[np.float64]:
        """The explained value of each row."""
        return np.array([row.value for row in self.rows])

    def stream(self, name: str) -> NDArray[np.float64]:
        """The sum over the units of one stream, per row: how much of each token came from there."""
        known = self.streams
        if name not in known:
            raise UsageError(f"The streams are {', '.join(known)}; found {name!r}.")
        held = [[unit.stream == name for unit in row.units] for row in self.rows]
        return np.array([float(row.relevance[h].sum()) for row, h in zip(self.rows, held, strict=True)])

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams, in the order in which their units stand."""
        return tuple(dict.fromkeys(unit.stream for unit in self.units))

    # ---- the books, row by row ---------------------------------------------------------------------------------

    @property
    def conservation_error(self) -> float:
        """The largest of the rows'."""
        return float(np.max([row.conservation_error for row in self.rows]))

    @property
    def residual(self) -> float:
        """The largest of the rows'."""
        return float(np.max([row.residual for row in self.rows]))

    def conserves(self, threshold: float = 1e-4) -> bool:
        """True if every row does."""
        return all(row.conserves(threshold) for row in self.rows)

    # ---- what all rows share -----------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The model's name."""
        return self.rows[0].model

    @property
    def method(self) -> str:
        """How relevance was computed."""
        return self.rows[0].method

    @property
    def task(self) -> str:
        """What the model does."""
        return self.rows[0].task

    @property
    def texts(self) -> Mapping[str, str]:
        """What was read and what was produced, by stream."""
        return self.rows[0].texts

    @property
    def pictures(self) -> Mapping[str, str]:
        """The images that were read, by stream."""
        return self.rows[0].pictures

    @property
    def recipe(self) -> Recipe:
        """All that is needed to make the rows again."""
        return self.rows[0].recipe

    @property
    def warnings(self) -> tuple[str, ...]:
        """What any row warns of, each once."""
        return tuple(dict.fromkeys(warning for row in self.rows for warning in row.warnings))

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """The entries of all rows, one after the other."""
        return tuple(entry for row in self.rows for entry in row.ledger)

    def words(self) -> GenerationMap:
        """The columns summed word by word; the rows stay tokens."""
        return self._each(RelevanceMap.words)

    def sentences(self) -> GenerationMap:
        """The columns summed sentence by sentence; the rows stay tokens."""
        return self._each(RelevanceMap.sentences)

    def spans(self, spans: Sequence[Span], *, stream: str | None = None) -> GenerationMap:
        """The columns of each span of a stream (by default the first) summed into one; the rows stay tokens."""
        return self._each(lambda row: row.spans(spans, stream=stream or self.streams[0]))

    def _each(self, regroup: Callable[[RelevanceMap], RelevanceMap]) -> GenerationMap:
        """Regroup the last row, then the others as parts of it.

        A group of which only the first members had been produced keeps its unit, with what they sum to.
        """
        widest = max(self.rows, key=lambda row: len(row.units))
        whole = regroup(widest)
        rows = []
        for row in self.rows:
            mine = regroup(row)
            units = whole.units[: len(mine.units)]
            rows.append(mine.renamed(units))
        return GenerationMap(rows=tuple(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> RelevanceMap:
        return self.rows[row]

    def __iter__(self) -> Iterator[RelevanceMap]:
        return iter(self.rows)

    # ---- leaving -----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain data in the published schema; `from_dict` gives the same back."""
        return {"schema": SCHEMA, "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GenerationMap:
        """What `to_dict` wrote; raises UsageError for another schema."""
        if not isinstance(data, Mapping) or "rows" not in data:
            raise UsageError("A saved generation is a JSON object with `rows`. A single map is read by RelevanceMap.")
        if not isinstance(data["rows"], list):
            raise TypeError(f"`rows` is a {type(data['rows']).__name__}")
        if data.get("schema") != SCHEMA:
            raise UsageError(
                f"This version reads schema {SCHEMA}; found {data.get('schema')!r}. Explain again to renew it."
            )
        return cls(rows=tuple(RelevanceMap.from_dict(row) for row in data["rows"]))

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless), `.html`, `.png` or `.svg`; nothing is left half-written."""
        from clearhead import render

        return render.save([self], path)

    @classmethod
    def load(cls, path: str | Path) -> GenerationMap:
        """Read what `save` wrote as `.json`; raises OutputError if it cannot be read."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"A saved generation is a JSON file; {path} cannot be read as one: {error}.") from error
        try:
            return cls.from_dict(data)
        except (KeyError, TypeError) as error:
            raise OutputError(f"{path} is not a saved generation: {type(error).__name__}: {error}.") from error

    def show(self) -> None:
        """Print the matrix to the terminal."""
        from clearhead import render

        render.show([self])

    def _repr_html_(self) -> str:
        from clearhead import render

        return render.fragment([self])

    def __repr__(self) -> str:
        books = f"conservation_error {self.conservation_error:.1e}" if self.rows[0].additive else "no books"
        return f"<GenerationMap {self.method} of {len(self.rows)} tokens over {len(self.units)} units, {books}>"
