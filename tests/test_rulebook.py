"""The book of rules: said in the terminal, as data, in reports, and the same as what the engine does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearhead import render
from clearhead.cli import app
from clearhead.config import PRESETS as SETTINGS
from clearhead.config import Settings
from clearhead.maps import Recipe
from clearhead.rulebook import INPUT_RULES, PRESETS, RESIDUAL, RULEBOOK, implied
from render.examples import review


def run(*args: str) -> str:
    done = CliRunner().invoke(app, ["rules", *args])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_rule_and_preset_is_listed():
    said = run()
    for name, each in {**RULEBOOK, **RESIDUAL}.items():
        for text in (name, each.formula, each.use, each.conserves, each.cost, each.source):
            assert text in said
    for name, each in PRESETS.items():
        assert name in said
        assert each.implies in said


def test_as_data():
    found = json.loads(run("--json"))
    assert [each["rule"] for each in found["rules"]] == list(RULEBOOK)
    assert [each["rule"] for each in found["rules"] if each["of"] == "input"] == list(INPUT_RULES)
    assert {each["preset"]: each["settings"] for each in found["presets"]} == SETTINGS


def test_every_number_that_a_rule_takes_is_a_setting():
    for each in (*RULEBOOK.values(), *RESIDUAL.values()):
        assert all(hasattr(Settings(), number) for number in each.takes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("input=w2", {"input": "w2"}),
        ("*a*=gamma:0.5, 0..3=0", {"*a*": {"rule": "gamma", "gamma": 0.5}, "0..3": "0"}),
    ],
)
def test_the_flag_spells_a_table(given, said):
    from clearhead.cli.flags import spelled

    assert spelled({"rules": given})["rules"] == said


@pytest.mark.parametrize(
    ("given", "said"),
    [("input", "layers and their rules"), ("a=zB:3", "takes a number behind"), ("a=gamma:x", "takes a number behind")],
)
def test_the_flag_says_what_it_takes(given, said):
    done = CliRunner().invoke(app, ["config", "--rules", given])
    assert done.exit_code == 2
    assert said in done.output + (done.stderr or "")


def test_config_prints_a_table_as_a_file_has_it():
    done = CliRunner().invoke(app, ["config", "--rules", "*a b*=gamma:0.5,input=w2"])
    assert '{ "*a b*" = { rule = "gamma", gamma = 0.5 }, input = "w2" }' in done.output


# ---- what reports say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_told_in_one_sentence(name):
    settings, _ = Settings.resolve(preset=name)
    assert implied(settings.as_dict()) == f"Preset {name}: {PRESETS[name].implies}."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epsilon": 0.1}, "; but epsilon is 0.1."),
        ({"preset": "vision", "rules": {"input": "w2"}}, "; but input has w2."),
        ({"rules": {"0..2": {"rule": "gamma", "gamma": 0.5}}}, "; but 0..2 has gamma with gamma 0.5."),
        ({"preset": "attnlrp", "leak": "return", "residual_rule": "gamma"}, "leak is return"),
    ],
)
def test_what_differs_from_the_preset_is_told(given, said):
    assert said in implied(Settings.resolve(**given)[0].as_dict())


def test_settings_that_are_no_choice_of_rules_are_not():
    assert "but" not in implied(Settings.resolve(method="lrp", threshold=0.5, steps=3)[0].as_dict())


@pytest.mark.parametrize("method", ["lrp", "secant"])
def test_the_report_and_the_terminal_say_it_of_lrp_only(method, capsys, tmp_path):
    settings = Settings.resolve(preset="vision", method=method)[0].as_dict()
    made = replace(review(), method=method, recipe=Recipe(settings=settings))
    made.show()
    shown = " ".join(capsys.readouterr().out.split())
    page = render.save([made], tmp_path / "map.html").read_text(encoding="utf-8")
    for said in (shown, " ".join(page.split())):
        assert (f"Preset vision: {PRESETS['vision'].implies}." in said) is (method == "lrp")


# ---- documents -----------------------------------------------------------------------------------------------------


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_presets_as_they_are():
    assert dict(
        re.findall(
            r"^\| `([\w-]+)` \| ([^|]+) \|$", README.split("| `preset` |")[1].split("\n## ")[0], flags=re.MULTILINE
        )
    ) == {name: each.implies for name, each in PRESETS.items()}


def test_the_settings_file_in_the_readme_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")
    settings, _ = Settings.resolve(file=file)
    assert settings.rules == {
        "convolutions": "gamma",
        "input": "zB",
        "*layer.[0-3].*": {"rule": "gamma", "gamma": 0.5},
    }
