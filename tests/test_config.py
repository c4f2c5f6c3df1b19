"""Settings: who beats whom, what is refused, and what the refusal says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead import config
from clearhead.config import PRESETS, Settings, meanings
from clearhead.errors import ClearheadError, UsageError

POSITIVE = st.floats(min_value=1e-12, max_value=1e6, allow_nan=False)
ANY = {
    "method": st.sampled_from(get_args(config.Method)),
    "preset": st.sampled_from(get_args(config.Preset)),
    "rule": st.sampled_from(get_args(config.Rule)),
    "epsilon": POSITIVE | st.just(0.0),
    "attention": st.sampled_from(get_args(config.Attention)),
    "leak": st.sampled_from(get_args(config.Leak)),
    "threshold": POSITIVE,
    "strict": st.booleans(),
    "truncate": st.booleans(),
}


def toml(values: dict[str, Any]) -> str:
    def word(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else repr(value)

    return "".join(f"{name} = {word(value)}\n" for name, value in values.items())


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> str:
        path = tmp_path / "settings.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return _write


# ---- who beats whom ------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_default_preset():
    settings, origins = Settings.resolve()
    assert settings == Settings()
    assert {name: getattr(settings, name) for name in PRESETS["default"]} == PRESETS["default"]
    assert set(origins.values()) == {"default"}


def test_given_beats_file_beats_preset_beats_default(write):
    path = write('preset = "attnlrp"\nleak = "return"\nthreshold = 0.5\nepsilon = 0.25\n')
    settings, origins = Settings.resolve(file=path, epsilon=0.75, leak=None)
    assert (settings.epsilon, origins["epsilon"]) == (0.75, "given")
    assert (settings.leak, origins["leak"]) == ("return", f"file {path}")
    assert (settings.attention, origins["attention"]) == ("attnlrp", "preset attnlrp")
    assert (settings.strict, origins["strict"]) == (False, "default")
    assert (settings.threshold, origins["threshold"]) == (0.5, f"file {path}")


def test_a_given_preset_replaces_the_one_in_the_file_and_its_settings(write):
    settings, _ = Settings.resolve(file=write('preset = "attnlrp"\n'), preset="cp-lrp")
    assert (settings.preset, settings.attention, settings.leak) == ("cp-lrp", "cp", "record")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_what_it_says(name):
    settings, _ = Settings.resolve(preset=name)
    assert {key: getattr(settings, key) for key in PRESETS[name]} == PRESETS[name]


def test_presets_and_their_names_are_the_same_list():
    assert tuple(PRESETS) == get_args(config.Preset)


@pytest.mark.parametrize("text", ["epsilon = 0.5", "[clearhead]\nepsilon = 0.5\n[other]\nthing = 1"])
def test_settings_stand_at_the_top_or_in_their_own_table(write, text):
    assert Settings.resolve(file=write(text))[0].epsilon == 0.5


@given(st.fixed_dictionaries({}, optional=ANY))
def test_what_is_written_to_a_file_is_what_comes_back(tmp_path_factory, chosen):
    path = tmp_path_factory.mktemp("toml") / "settings.toml"
    path.write_text(toml(chosen), encoding="utf-8")
    from_file, from_words = Settings.resolve(file=path)[0], Settings.resolve(**chosen)[0]
    assert from_file == from_words
    assert {name: getattr(from_file, name) for name in chosen} == chosen


@given(st.fixed_dictionaries(ANY))
def test_settings_survive_being_made_plain(chosen):
    settings = Settings(**chosen)
    assert Settings(**settings.as_dict()) == settings


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        Settings().epsilon = 1.0


def test_every_setting_has_a_meaning_and_its_words():
    said = meanings()
    assert list(said) == [f.name for f in fields(Settings)]
    assert "cp, attnlrp" in said["attention"]
    assert all(len(text) > 10 for text in said.values())


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"), [("epsilom", "epsilon"), ("atention", "attention"), ("tresh", "threshold")]
)
def test_an_unknown_setting_names_the_nearest(wrong, right, write):
    for resolve in (lambda: Settings.resolve(**{wrong: 1}), lambda: Settings.resolve(file=write(f"{wrong} = 1"))):
        with pytest.raises(UsageError, match=f"no setting '{wrong}'.*Did you mean '{right}'"):
            resolve()


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("preset", "atnlrp", "attnlrp"),
        ("rule", "epsilom", "epsilon"),
        ("attention", "attnlp", "attnlrp"),
        ("leak", "records", "record"),
        ("method", "lpr", "lrp"),
    ],
)
def test_an_unknown_word_lists_the_words_and_names_the_nearest(name, wrong, right):
    with pytest.raises(UsageError, match=rf"`{name}` must be one of .*{wrong!r}.*Did you mean {right!r}"):
        Settings.resolve(**{name: wrong})


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"epsilon": -0.01}, "`epsilon` must be 0 or larger; found -0.01"),
        ({"epsilon": float("nan")}, "`epsilon` must be a finite number; found nan"),
        ({"epsilon": "0.01"}, "`epsilon` must be a finite number; found '0.01'"),
        ({"epsilon": True}, "`epsilon` must be a finite number; found True"),
        ({"threshold": 0}, "`threshold` must be larger than 0; found 0"),
        ({"threshold": float("nan")}, "`threshold` must be a finite number; found nan"),
        ({"strict": "yes"}, "`strict` must be true or false; found 'yes'"),
        ({"truncate": 1}, "`truncate` must be true or false; found 1"),
        ({"rule": 0}, "`rule` must be one of epsilon, 0, gamma, alpha-beta, z+; found 0"),
        ({"attention": ["cp"]}, "`attention` must be one of"),
        ({"preset": ["attnlrp"]}, "`preset` must be one of"),
    ],
)
def test_a_bad_value_is_refused_with_rule_and_finding(chosen, said):
    with pytest.raises(UsageError) as caught:
        Settings.resolve(**chosen)
    assert said in str(caught.value)


def test_the_error_is_clearheads_and_a_value_error():
    assert issubclass(UsageError, ClearheadError)
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epsilon = ", "is not TOML"),
        ("epsilon = 1\nepsilon = 2", "is not TOML"),
        ("clearhead = 3", "must be a table of settings; found 3"),
        ('preset = "attn"', "`preset` must be one of"),
    ],
)
def test_a_broken_file_is_refused(write, text, said):
    path = write(text)
    with pytest.raises(UsageError, match=said):
        Settings.resolve(file=path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(b'preset = "\xff"')
    with pytest.raises(UsageError, match=r"settings\.toml"):
        Settings.resolve(file=path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"missing\.toml cannot be read: No such file"):
        Settings.resolve(file=tmp_path / "missing.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        Settings.resolve(file=tmp_path)
