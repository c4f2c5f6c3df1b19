"""An input as a game: its units are the players, and what the model says to some of them is what these win."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from clearhead.attribution.drawing import seeded
from clearhead.attribution.found import Found, Ready, averaged
from clearhead.config import Settings
from clearhead.errors import UsageError
from clearhead.question import Baseline, Question
from clearhead.removal import Removal

Play = Callable[["Game", Settings], tuple[NDArray[np.float64], NDArray[np.float64] | None, str]]


class Game:
    """What the model says to each subset of the units that can be removed, each asked once.

    Called with n subsets [n, players], 1 for a unit that stays; gives [n], float64. Raises UsageError where no unit
    can be removed.
    """

    def __init__(self, question: Question, baseline: Baseline, aim: int) -> None:
        self.removal = Removal(question, baseline, aim)
        self.label = baseline.label
        horizon = question.items[0].aims[aim].horizon
        self.players = np.flatnonzero(self.removal.removable[:horizon])
        if not len(self.players):
            raise UsageError(
                "A unit must be removable: neither special, nor the same in the baseline; found none. Choose another "
                "baseline, or a longer input."
            )
        self.units = [self.removal.units[i] for i in self.players]
        self.grid = question.items[0].layouts[0].grid
        self._known: dict[bytes, float] = {}
        self._bar: Callable[[int], object] = lambda count: None

    @property
    def passes(self) -> int:
        """How many subsets were asked about."""
        return len(self._known)

    def __call__(self, subsets: Tensor | NDArray[np.float64]) -> Tensor:
        """What the model says to each subset."""
        keep = np.asarray(subsets, dtype=np.float64) > 0.5
        keys = [row.tobytes() for row in keep]
        new = {key: row for key, row in zip(keys, keep, strict=True) if key not in self._known}
        if new:
            whole = np.ones((len(new), len(self.removal.units)), dtype=bool)
            whole[:, self.players] = list(new.values())
            self._known.update(zip(new, self.removal.scores(whole).tolist(), strict=True))
            self._bar(len(new))
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float64)

    @property
    def value(self) -> float:
        """With all players."""
        return float(self(np.ones((1, len(self.players))))[0])

    @property
    def base(self) -> float:
        """Without any."""
        return float(self(np.zeros((1, len(self.players))))[0])

    @contextmanager
    def counted(self, what: str, total: int) -> Iterator[None]:
        """A bar that counts subsets, in a terminal where it takes more than a moment."""
        with tqdm(total=total, desc=what, unit="subset", leave=False, disable=None, delay=1) as bar:
            self._bar = bar.update
            try:
                yield
            finally:
                self._bar = lambda _: None

    def spread(self, relevance: NDArray[np.float64]) -> NDArray[np.float64]:
        """From a number for each player to one for each unit: 0 for units that do not play."""
        found = np.zeros(len(self.removal.units))
        found[self.players] = relevance
        return found


def played(play: Play) -> Callable[[Question, Settings], Ready]:
    """How a method that plays games begins: one for each baseline, their mean for each aim."""

    def begin(question: Question, settings: Settings) -> Ready:
        if not question.baselines:
            raise UsageError("Removing needs a baseline; this question has none. Give baseline=...")
        return lambda n: averaged([_one(Game(question, each, n), play, settings) for each in question.baselines])

    return begin


def _one(game: Game, play: Play, settings: Settings) -> Found:
    with seeded(settings.seed):
        relevance, error, said = play(game, settings)
    return Found(
        target=game.removal.target,
        value=game.value,
        base=game.base,
        relevance=game.spread(relevance),
        compared=(game.label,),
        error=None if error is None else game.spread(error),
        said=(f"{said} {game.passes} inputs were read.",),
    )
