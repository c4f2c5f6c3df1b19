"""Settings in one typed, frozen place: each with its default, its meaning, and where its value came from."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from clearhead import rulebook
from clearhead.errors import UsageError, choice, suggest
from clearhead.rulebook import Preset, ResidualRule, Rule

Method = Literal[
    "lrp",
    "secant",
    "attention",
    "rollout",
    "flow",
    "gradient-attention",
    "value-zeroing",
    "gradcam",
    "integrated-gradients",
    "gradient-shap",
    "input-x-gradient",
    "saliency",
    "deeplift",
    "kernel-shap",
    "shapley-sampling",
    "lime",
    "occlusion",
    "partition-shap",
    "auto",
]
Attention = Literal["cp", "attnlrp"]
Reference = Literal["neutral", "zero"]
Leak = Literal["return", "record"]
Fusion = Literal["mean", "max", "min"]
Cam = Literal["mean-gradient", "elementwise"]

PRESETS = {name: dict(preset.settings) for name, preset in rulebook.PRESETS.items()}

# Settings of lrp: who gives one of them means lrp.
RULES = (
    "preset", "rule", "rules", "epsilon", "gamma", "alpha", "low", "high", "residual_rule", "residual_gamma",
    "attention", "reference", "leak", "strict",
)  # fmt: skip


def _setting(default: Any, meaning: str) -> Any:
    if isinstance(default, dict):
        return field(default_factory=dict, hash=False, metadata={"meaning": meaning})
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be chosen about an explanation. Raises UsageError for a value outside its range."""

    method: Method = _setting("secant", "how relevance is computed; `lrp` if one of its settings is given")
    preset: Preset = _setting("default", "a named set of rules and what goes with them; `clearhead rules` lists them")
    rule: Rule = _setting("epsilon", "rule of linear layers and convolutions; `clearhead rules` says what each does")
    rules: Mapping[str, Any] = _setting(
        {},
        "rules of some layers, by path with * and ?, by number as in 0..3, or by the words input and convolutions; "
        "the last that fits counts, and those of a preset come first",
    )
    epsilon: float = _setting(0.01, "stabiliser of the epsilon rule, in the unit of a layer's output")
    gamma: float = _setting(0.25, "how much more the gamma rule gives to what agrees with a layer's output")
    alpha: float = _setting(2.0, "share of what speaks for an output in the alpha-beta rule; alpha - 1 speaks against")
    low: float | None = _setting(None, "smallest value an input can have, for the rule zB; known of images")
    high: float | None = _setting(None, "largest value an input can have, for the rule zB; known of images")
    residual_rule: ResidualRule = _setting(
        "plain", "sums of a residual path: `plain` shares, or `gamma`, more to the term that decides the sign"
    )
    residual_gamma: float = _setting(1.0, "how much more")
    attention: Attention = _setting(
        "cp", "`cp`: weights are constants, all through the values; `attnlrp`: half through the weights"
    )
    reference: Reference = _setting(
        "neutral",
        "where slopes of pointwise functions start: `neutral` at what a text that says nothing has there, or `zero`",
    )
    leak: Leak = _setting(
        "return", "`return` hands lost relevance back to the operation's own input; `record` only books it"
    )
    layer: int | str | None = _setting(
        None, "which layer: a number from 0 on, from the end below 0, or for gradcam the path of a module"
    )
    heads: tuple[int, ...] | None = _setting(None, "which heads of a layer, by number; all where nothing is said")
    fusion: Fusion = _setting("mean", "how the heads of a layer become one table of weights")
    residual: float = _setting(0.5, "share of the residual path in each layer of rollout and flow")
    discard: float = _setting(0.0, "share of the smallest weights of each row that rollout leaves out")
    drop_sink: bool = _setting(False, "leave out the unit that takes most of a rollout without being read for it")
    cam: Cam = _setting("mean-gradient", "how gradcam weighs channels: by their mean gradient, or `elementwise`")
    steps: int = _setting(0, "steps of integrated gradients; 0 takes as many as leave less than 1 % over")
    halvings: int = _setting(
        0, "ways of secant through mixtures that have half of the baseline's units; 0 goes straight to the baseline"
    )
    samples: int = _setting(0, "how many points, subsets or orders a method draws; 0 lets the number of units decide")
    seed: int = _setting(0, "where random draws of a method begin")
    cross_check: bool = _setting(True, "compare what comes from attention with lrp, and say how far they agree")
    force: bool = _setting(False, "compute what would take minutes instead of refusing it")
    threshold: float = _setting(1e-4, "largest conservation error that passes")
    strict: bool = _setting(False, "refuse operations that have no rule instead of metering what they lose")
    checkpoint: bool = _setting(
        False,
        "compute each block again on the way back of lrp and secant instead of keeping what it computed: less memory, "
        "more time",
    )
    batch_size: int = _setting(0, "inputs of a list explained at a time; 0 lets free memory decide")
    truncate: bool = _setting(False, "cut texts longer than the model's maximum instead of refusing them")

    def __post_init__(self) -> None:
        if isinstance(self.heads, list):  # as a settings file writes it
            object.__setattr__(self, "heads", tuple(self.heads))
        if self.rule in rulebook.INPUT_RULES:
            raise UsageError(
                f"The rule {self.rule} is one of the layer that reads the input; found it as `rule`, that of all "
                f"layers. Give it there: rules={{'{rulebook.INPUT}': '{self.rule}'}}."
            )
        for name, kind in get_type_hints(Settings).items():
            _check(name, getattr(self, name), kind)
        if not self.residual_gamma >= 0:
            raise UsageError(f"`residual_gamma` must be 0 or larger; found {self.residual_gamma}. The default is 1.")
        object.__setattr__(self, "rules", dict(self.rules))
        rulebook.parsed(self.rules, self.choice)
        if not 0 <= self.residual < 1:
            raise UsageError(f"`residual` must be at least 0 and below 1; found {self.residual}. The default is 0.5.")
        if not 0 <= self.discard < 1:
            raise UsageError(f"`discard` must be at least 0 and below 1; found {self.discard}. The default is 0.")
        for name in ("batch_size", "steps", "halvings", "samples", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"`{name}` must be 0 or larger; found {getattr(self, name)}. The default is 0.")
        if not self.threshold > 0:
            raise UsageError(f"`threshold` must be larger than 0; found {self.threshold}. The default is 1e-4.")

    @classmethod
    def resolve(cls, *, file: str | Path | None = None, **given: Any) -> tuple[Settings, dict[str, str]]:
        """Settings and the origin of each: given beats the file, both beat the preset, the preset beats the default.

        Without a method, a setting of lrp means lrp.

        Raises UsageError for an unknown name (and names the nearest) or value.
        """
        layers = {
            f"file {file}": read(file) if file else {},
            "given": {k: v for k, v in given.items() if v is not None},
        }
        for name in (name for layer in layers.values() for name in layer):
            if name not in _NAMES:
                raise UsageError(f"There is no setting {name!r}; there are {', '.join(_NAMES)}.{suggest(name, _NAMES)}")
        merged = {name: (value, origin) for origin, layer in layers.items() for name, value in layer.items()}
        preset = merged.get("preset", ("default", "default"))[0]
        if not isinstance(preset, str) or preset not in PRESETS:
            raise choice("preset", preset, PRESETS)
        if preset != "default":
            merged = {name: (value, f"preset {preset}") for name, value in PRESETS[preset].items()} | merged
        if "method" not in merged and any(name in merged for name in RULES):
            merged["method"] = ("lrp", "its settings")
        values = {name: value for name, (value, _) in merged.items()}
        if "rules" in values:
            values["rules"] = _stacked(PRESETS[preset], *layers.values())
        return cls(**values), {name: merged[name][1] if name in merged else "default" for name in _NAMES}

    @property
    def choice(self) -> rulebook.Choice:
        """The rule of every layer that `rules` does not name."""
        return rulebook.Choice(
            rule=self.rule, epsilon=self.epsilon, gamma=self.gamma, alpha=self.alpha, low=self.low, high=self.high
        )

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain data, for a recipe."""
        return asdict(self)


_NAMES = tuple(f.name for f in fields(Settings))


def _stacked(*layers: Mapping[str, Any]) -> Any:
    """The tables of rules of some settings on top of each other: what is said last stands last."""
    found: dict[str, Any] = {}
    for each in layers:
        given = each.get("rules") or {}
        if not isinstance(given, Mapping):
            return given
        found = {**{words: rule for words, rule in found.items() if words not in given}, **given}
    return found


def meanings() -> dict[str, str]:
    """What each setting means, and the words it takes."""
    hints = get_type_hints(Settings)
    words = {n: get_args(h) if get_origin(h) is Literal else () for n, h in hints.items()}
    return {
        f.name: f.metadata["meaning"] + (f" ({', '.join(words[f.name])})" if words[f.name] else "")
        for f in fields(Settings)
    }


THRESHOLDS = "thresholds"  # the table of a settings file that says where verdicts turn


def read(path: str | Path) -> dict[str, Any]:
    """The settings of a TOML file, at its top level or under `[clearhead]`. Raises UsageError if it cannot be read."""
    return {name: value for name, value in _section(path).items() if name != THRESHOLDS}


def thresholds(path: str | Path) -> dict[str, Any]:
    """The thresholds of verdicts in a TOML file, the table `thresholds` among the settings. Raises UsageError."""
    found = _section(path).get(THRESHOLDS, {})
    if not isinstance(found, Mapping):
        raise UsageError(f"`{THRESHOLDS}` in {path} must be a table of numbers by name; found {found!r}.")
    return dict(found)


def _section(path: str | Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The settings file {path} is not TOML: {error}.") from error
    section = data.get("clearhead", data)
    if not isinstance(section, Mapping):
        raise UsageError(f"`clearhead` in {path} must be a table of settings; found {section!r}.")
    return dict(section)


def _check(name: str, value: Any, kind: Any) -> None:
    """Raise UsageError for a value that is not of the kind its setting has."""
    if kind in _KINDS:
        fits, said = _KINDS[kind]
        if not fits(value):
            raise UsageError(f"`{name}` must be {said}; found {value!r}.")
    elif value not in get_args(kind):
        raise choice(name, value, get_args(kind))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(value: Any) -> bool:
    return value is None or (isinstance(value, tuple) and len(value) > 0 and all(map(_whole, value)))


# Of each kind of setting: what fits, and how to say so.
_KINDS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    float: (_number, "a finite number"),
    int: (_whole, "a whole number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int | str | None: (lambda value: value is None or isinstance(value, str) or _whole(value), "a number or a path"),
    float | None: (lambda value: value is None or _number(value), "a finite number"),
    Mapping[str, Any]: (
        lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
        "a table of layers and their rules",
    ),
    tuple[int, ...] | None: (_numbers, "a list of whole numbers, at least one"),
}
