"""The rules of lrp and the presets made of them, as data: what each does, when to use it, and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from clearhead.errors import UsageError, choice, suggest

Rule = Literal["epsilon", "0", "gamma", "alpha-beta", "z+"]
InputRule = Literal["w2", "flat", "zB"]  # of the layer that reads the input, and of no other
ResidualRule = Literal["plain", "gamma"]
Preset = Literal["default", "attnlrp", "cp-lrp", "vision", "gamma", "alpha-beta"]

INPUT, CONVOLUTIONS = "input", "convolutions"  # words for layers by what they do
_NUMBERED = re.compile(r"(\d*)\.\.(\d*)")


@dataclass(frozen=True, kw_only=True)
class Described:
    """A rule in words: `takes` are the numbers that it can be given, the one that `name:number` means first."""

    formula: str
    use: str
    conserves: str
    cost: str
    source: str
    takes: tuple[str, ...] = ()


_BOTH_LEAKS = "yes, once the parts of bias and epsilon are returned"
_BIAS = "yes, once the part of the bias is returned"
_ONE_SIGN = "yes, once the parts of the bias, and of outputs without a contribution of one sign, are returned"
_ALL = "yes: the bias takes no part"

RULEBOOK: dict[str, Described] = {
    "epsilon": Described(
        formula="R_i = sum_j a_i w_ij R_j / (z_j + epsilon sign z_j)",
        use="everywhere: the default; epsilon absorbs what weak outputs would blow up",
        conserves=_BOTH_LEAKS,
        cost="none: the product of the backward pass itself",
        source="Bach et al. 2015, section 2; Montavon et al. 2019, table 1",
        takes=("epsilon",),
    ),
    "0": Described(
        formula="R_i = sum_j a_i w_ij R_j / z_j",
        use="for rules as published for language models; equal to gradient times input in a layer",
        conserves=_BIAS,
        cost="none: the product of the backward pass itself",
        source="Bach et al. 2015; Achtibat et al. 2024",
    ),
    "gamma": Described(
        formula="R_i = sum_j f(a_i w_ij) R_j / sum_k f(a_k w_kj), f(p) = p + gamma p where p has the sign of z_j",
        use="convolutions and patches, for which it was made; in other layers measure it first, with `evaluate`",
        conserves=_BIAS,
        cost="two more products in the backward pass",
        source="Montavon et al. 2019, table 1; for outputs of both signs Andeol et al. 2023",
        takes=("gamma",),
    ),
    "alpha-beta": Described(
        formula="R_i = sum_j (alpha p+_ij / sum_k p+_kj - beta p-_ij / sum_k p-_kj) R_j, beta = alpha - 1, p = a w",
        use="convolutions with ReLU, for which it was made; in transformers measure it first, with `evaluate`",
        conserves=_ONE_SIGN,
        cost="seven more products in the backward pass",
        source="Bach et al. 2015, equation 60",
        takes=("alpha",),
    ),
    "z+": Described(
        formula="R_i = sum_j p+_ij / sum_k p+_kj R_j, p = a w: alpha-beta with alpha = 1",
        use="as alpha-beta, where only what speaks for an output is to count",
        conserves=_ONE_SIGN,
        cost="three more products in the backward pass",
        source="Montavon et al. 2017, section 4",
    ),
    "w2": Described(
        formula="R_i = sum_j w_ij^2 / sum_k w_kj^2 R_j",
        use="the layer that reads the input, where its values have no bounds",
        conserves=_ALL,
        cost="one more product in one layer",
        source="Montavon et al. 2017, section 4",
    ),
    "flat": Described(
        formula="R_i = sum_j R_j / n_j, the n_j inputs that output j sees",
        use="the layer that reads the input, to see which places matter and not which values",
        conserves=_ALL,
        cost="one more product in one layer",
        source="Lapuschkin et al. 2019",
    ),
    "zB": Described(
        formula="R_i = sum_j s_ij / sum_k s_kj R_j, s_ij = a_i w_ij - low_i w+_ij - high_i w-_ij",
        use="the layer that reads the pixels of an image; black counts as much as white",
        conserves=_ALL,
        cost="three more products in one layer",
        source="Montavon et al. 2017, section 4",
        takes=("low", "high"),
    ),
}
RESIDUAL: dict[str, Described] = {
    "plain": Described(
        formula="R_a = R_y a / y for y = a + b",
        use="everywhere: the default",
        conserves="yes",
        cost="none",
        source="Bach et al. 2015",
    ),
    "gamma": Described(
        formula="R_a = R_y w(a) a / (w(a) a + w(b) b), w(z) = 1 + residual_gamma where z has the sign of y, else 1",
        use="deep models of images: abs(R_a) + abs(R_b) <= (1 + 2 / residual_gamma) abs(R_y)",
        conserves="yes",
        cost="a few vector operations for each sum",
        source="the gamma rule for the two terms of a sum; ResLRP, preprint 2026",
        takes=("residual_gamma",),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Meant:
    """A preset: the settings it stands for, which anything asked for explicitly still beats, and what they imply."""

    settings: Mapping[str, Any]
    implies: str


_RETURNED = {"attention": "cp", "reference": "neutral", "leak": "return"}
_RECORDED = {"rule": "0", "epsilon": 0.0, "reference": "zero", "leak": "record"}
PRESETS: dict[str, Meant] = {
    "default": Meant(
        settings={"rule": "epsilon", "epsilon": 0.01, **_RETURNED},
        implies="epsilon rule in linear layers, attention weights as constants; what leaks is handed back where it "
        "leaked, so the units add up to the explained value",
    ),
    "attnlrp": Meant(
        settings={**_RECORDED, "attention": "attnlrp"},
        implies="AttnLRP as published (Achtibat et al. 2024): half of what passes attention goes by its weights; what "
        "leaks is recorded, so the units need not add up to the explained value",
    ),
    "cp-lrp": Meant(
        settings={**_RECORDED, "attention": "cp"},
        implies="CP-LRP as published (Ali et al. 2022): attention weights as constants; what leaks is recorded, so the "
        "units need not add up to the explained value",
    ),
    "vision": Meant(
        settings={
            "rule": "epsilon",
            "epsilon": 0.01,
            "gamma": 0.25,
            "rules": {CONVOLUTIONS: "gamma", INPUT: "gamma"},
            "residual_rule": "gamma",
            **_RETURNED,
        },
        implies="gamma rule in convolutions and in the layer that reads the input, epsilon rule elsewhere; in residual "
        "sums the term that decides the sign weighs more, so less relevance cancels; what leaks is handed back",
    ),
    "gamma": Meant(
        settings={"rule": "gamma", "gamma": 0.25, **_RETURNED},
        implies="gamma rule in every linear layer: what agrees with a layer's output weighs more, so less relevance "
        "cancels; what leaks is handed back",
    ),
    "alpha-beta": Meant(
        settings={"rule": "alpha-beta", "alpha": 2.0, **_RETURNED},
        implies="alpha-beta rule in every linear layer: what speaks for an output and what speaks against it are "
        "shared out apart, whatever their balance; what leaks is handed back",
    ),
}


# ---- what holds for one layer --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The rule of one layer with its numbers. Raises UsageError for a number outside its range."""

    rule: str = "epsilon"
    epsilon: float = 0.01
    gamma: float = 0.25
    alpha: float = 2.0
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise UsageError(f"`epsilon` must be 0 or larger; found {self.epsilon}. The default is 0.01.")
        if not self.gamma >= 0:
            raise UsageError(f"`gamma` must be 0 or larger; found {self.gamma}. The default is 0.25.")
        if not self.alpha >= 1:
            raise UsageError(f"`alpha` must be 1 or larger (beta is alpha - 1); found {self.alpha}. The default is 2.")
        if (self.low is None) != (self.high is None):
            raise UsageError("`low` and `high` are the ends of one range; found only one of them. Give both.")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise UsageError(f"`low` must be below `high`; found {self.low} and {self.high}.")

    @property
    def absorbed(self) -> float:
        """What the rule adds to the size of an output, if it is one that does."""
        return self.epsilon if self.rule == "epsilon" else 0.0


@dataclass(frozen=True, slots=True)
class Where:
    """Which layers are meant: `input` or `convolutions`, `2..5` for numbered layers, else paths of modules.

    A path may hold `*`, `?` and `[...]`; what lies inside of a module is meant with it. A layer's number is the first
    in its path.
    """

    words: str
    first: float = field(init=False)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        ends = _NUMBERED.fullmatch(self.words)
        first, last = (ends[1], ends[2]) if ends else ("", "")
        object.__setattr__(self, "first", float(first) if first else 0.0 if ends else math.nan)
        object.__setattr__(self, "last", float(last) if last else math.inf if ends else math.nan)

    def means(self, path: str, *, convolution: bool = False, reads: bool = False) -> bool:
        """Is this layer meant? `reads` says that it reads the input."""
        if self.words == INPUT:
            return reads
        if self.words == CONVOLUTIONS:
            return convolution
        if not math.isnan(self.first):
            number = _number(path)
            return number is not None and self.first <= number <= self.last
        return any(fnmatchcase(each, self.words) for each in _with_parents(path))

    def check(self, paths: list[str]) -> None:
        """Raise UsageError for words that mean no module; names near ones."""
        if self.words in (INPUT, CONVOLUTIONS) or any(self.means(path) for path in paths):
            return
        if not math.isnan(self.first):
            numbers = [number for path in paths if (number := _number(path)) is not None]
            had = f"layers {min(numbers)} to {max(numbers)}" if numbers else "no numbered layers"
            raise UsageError(f"`rules` must name layers that there are; found {self.words!r}, and the model has {had}.")
        raise UsageError(
            f"`rules` must name modules that there are; no path matches {self.words!r}.{_near(self.words, paths)} "
            f"Patterns take * and ?; {INPUT!r}, {CONVOLUTIONS!r} and '0..3' are words for layers."
        )


def _number(path: str) -> int | None:
    """The number of the layer that a module is or belongs to: the first in its path."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), None)


def _with_parents(path: str) -> Iterator[str]:
    """A path, and those of the modules round it; the outermost has none."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _near(words: str, paths: list[str]) -> str:
    """Paths that look like a pattern."""
    bare = re.sub(r"\[[^]]*\]|[*?]", "", words).strip(".")
    held = [path for path in paths if bare and bare.lower() in path.lower()][:3]
    if held:
        return f" Did you mean {' or '.join(map(repr, held))}?"
    ends = {path.rpartition(".")[2]: path for path in reversed(paths)}
    return suggest(words, paths) or suggest(bare.rpartition(".")[2], ends)


def parsed(rules: Mapping[str, Any], usual: Choice) -> tuple[tuple[Where, Choice], ...]:
    """A table of rules as pairs of layers and what holds for them; a rule is a word, or a table with its numbers.

    Raises UsageError for an unknown rule, a number that it does not take or that is outside its range.

    >>> parsed({"2..3": {"rule": "gamma", "gamma": 0.5}}, Choice())[0][1].gamma
    0.5
    """
    return tuple((Where(words), _chosen(words, given, usual)) for words, given in rules.items())


def _chosen(words: str, given: Any, usual: Choice) -> Choice:
    table = {"rule": given} if isinstance(given, str) else given
    name = f"rules[{words!r}]"
    if not isinstance(table, Mapping) or "rule" not in table:
        raise UsageError(f"`{name}` must be a rule, or a table with `rule` and its numbers; found {given!r}.")
    rule, numbers = table["rule"], dict[str, Any]((key, value) for key, value in table.items() if key != "rule")
    if rule not in RULEBOOK:
        raise choice(name, rule, RULEBOOK)
    for key, value in numbers.items():
        if key not in RULEBOOK[rule].takes:
            taken = ", ".join(RULEBOOK[rule].takes) or "none"
            raise UsageError(f"The numbers of the rule {rule} in `{name}` are: {taken}; found {key!r}.")
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise UsageError(f"`{key}` in `{name}` must be a finite number; found {value!r}.")
    return replace(usual, rule=str(rule), **numbers)


# ---- in words ------------------------------------------------------------------------------------------------------


def implied(settings: Mapping[str, Any]) -> str:
    """What the preset among some settings implies, in one sentence, and which of them are other than it has them.

    >>> implied({"preset": "cp-lrp", "leak": "return"})[-36:]
    'explained value; but leak is return.'
    """
    preset = settings.get("preset")
    if preset not in PRESETS:
        return ""
    meant, usual = PRESETS[preset], {each.name: each.default for each in fields(Choice)}
    others = {
        "attention": "cp",
        "residual_rule": "plain",
        "residual_gamma": 1.0,
        "rules": {},
        **usual,
        **meant.settings,
    }
    changed = {key: settings[key] for key, value in others.items() if settings.get(key, value) != value}
    own = {words: rule for words, rule in changed.pop("rules", {}).items() if others["rules"].get(words) != rule}
    said = [f"{key} is {value}" for key, value in changed.items()]
    said += [f"{words} has {_spoken(rule)}" for words, rule in own.items()]
    but = f"; but {', '.join(said)}" if said else ""
    return f"Preset {preset}: {meant.implies}{but}."


def _spoken(rule: Any) -> str:
    """A rule with its numbers, as a sentence says it."""
    if not isinstance(rule, Mapping):
        return str(rule)
    numbers = " and ".join(f"{key} {value}" for key, value in rule.items() if key != "rule")
    return f"{rule.get('rule')} with {numbers}" if numbers else str(rule.get("rule"))


INPUT_RULES = get_args(InputRule)
