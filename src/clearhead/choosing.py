"""Which method explains a model most faithfully for its price: measured on a user's own inputs, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clearhead.checks import Choices, chosen
from clearhead.config import Settings
from clearhead.errors import ClearheadError, UsageError
from clearhead.subjects import Subject, Wanted, reads_images
from clearhead.subjects.documents import read
from clearhead.validating import Judging, measured
from clearhead.validations import Evaluation

AUTO = "auto"
CANDIDATES: dict[str, dict[str, Any]] = {
    "secant": {"method": "secant"},
    "lrp": {"method": "lrp"},
    "lrp:attnlrp": {"method": "lrp", "preset": "attnlrp"},
    "gradient-attention": {"method": "gradient-attention"},
    "gradcam": {"method": "gradcam"},
    "input-x-gradient": {"method": "input-x-gradient"},
    "integrated-gradients": {"method": "integrated-gradients", "steps": 20},
    "occlusion": {"method": "occlusion"},
}
QUICK = Choices(points=6, bins=(0.5,), orders=2, steps=0, sets=0)  # what dA takes, and little else
SECONDS = 60.0
MOST = 200  # inputs, beyond which intervals hardly shrink
ENOUGH = 20  # inputs from which on a choice is kept, and a list is measured without being asked to
DEFAULT = Settings().method  # where there is nothing to choose by
FOLDER = "CLEARHEAD_CACHE"  # the variable that says where choices are kept

Resolve = Callable[[dict[str, Any]], Settings]


class Choosing:
    """The methods of one model that were chosen so far, in this process and in the user's cache."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._known: dict[str, Evaluation] = {}

    def choose(self, data: Any, wanted: Wanted, resolve: Resolve, *, seconds: float = SECONDS) -> Evaluation:
        """Measure the candidates on inputs for about so many seconds, choose, and keep the choice.

        Raises UsageError for a time that is none, and if no input can be judged.
        """
        if not seconds > 0:
            raise UsageError(f"`seconds` must be larger than 0; found {seconds!r}. The default is {SECONDS:.0f}.")
        inputs, _ = read(data, None, images=reads_images(self._subject.task), judged="A method is chosen")
        found = self._measured(inputs, wanted, resolve, seconds)
        self._known[self._key(wanted)] = found
        if found.inputs >= ENOUGH and found.chosen:
            with contextlib.suppress(OSError, ClearheadError):  # a cache that cannot be written is none
                path = self._path(wanted)
                path.parent.mkdir(parents=True, exist_ok=True)
                found.save(path)
        return found

    def settled(self, inputs: Sequence[Any], wanted: Wanted, resolve: Resolve) -> tuple[Settings, str]:
        """The settings of the chosen method, and a sentence; a long list of inputs is measured if nothing is known.

        Where there is nothing to choose by, the default method. Raises what a candidate raises.
        """
        found = self.known(wanted)
        if found is None and len(inputs) >= ENOUGH:
            found = self.choose(list(inputs), wanted, resolve)
        if found is not None and found.chosen is not None:
            return resolve(dict(CANDIDATES[found.chosen])), f"method='auto' took {found.choice()}"
        why = "no method was better than chance" if found else "nothing was measured yet: choose(data) does"
        return resolve({"method": DEFAULT}), f"method='auto' took {DEFAULT}; {why}."

    def known(self, wanted: Wanted) -> Evaluation | None:
        """What was measured of this model before, for the same kind of question."""
        key = self._key(wanted)
        if key not in self._known:
            with contextlib.suppress(OSError, ClearheadError):
                self._known[key] = Evaluation.load(self._path(wanted))
        return self._known.get(key)

    def _measured(self, inputs: Sequence[Any], wanted: Wanted, resolve: Resolve, seconds: float) -> Evaluation:
        candidates = {name: resolve({"cross_check": False, **given}) for name, given in CANDIDATES.items()}
        judging = Judging(methods=candidates, firm=False, choices=QUICK)
        means, found = measured(self._subject, inputs[:MOST], wanted, judging, seconds=seconds)
        return chosen(means, found)

    def _path(self, wanted: Wanted) -> Path:
        base = os.environ.get(FOLDER) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "clearhead"
        return Path(base).expanduser() / "choices" / f"{self._key(wanted)}.json"

    def _key(self, wanted: Wanted) -> str:
        """What a choice depends on: the model, its task, what it is compared with, and the candidates."""
        baseline = wanted.baseline if isinstance(wanted.baseline, str) else type(wanted.baseline).__name__
        about = [self._subject.fingerprint(), self._subject.task, baseline, CANDIDATES, asdict(QUICK)]
        return hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()[:16]
