"""validate, evaluate and choose from the shell: flags become one call, and results go where they belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearhead.validations import Evaluation, Validation
from test_cli import Fake, fake, run  # noqa: F401  (a fixture)

SENTIMENT = "clearhead/sentiment"
TEXT = "a gripping , beautiful film that never loses its sense of fun ."


class Judge(Fake):
    """Notes what is asked of it, and gives what a real model gave."""

    found: Any = None

    def _asked(self, verb: str, given: Any, asked: Any) -> Any:
        print("chatter of a library on standard output")
        self.calls.append((verb, (given, asked)))
        return self.found

    def validate(self, given: Any, **asked: Any) -> Any:
        return self._asked("validate", given, asked)

    def evaluate(self, data: Any, **asked: Any) -> Any:
        return self._asked("evaluate", data, asked)

    def choose(self, data: Any, **asked: Any) -> Any:
        return self._asked("choose", data, asked)


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    from clearhead import AttentionVisualizer
    from clearhead.checks import Choices

    av, quick = AttentionVisualizer.from_pretrained(SENTIMENT), Choices(points=4, orders=2, steps=0, sets=0)
    texts = [TEXT, "a dull , tedious mess that never finds its way out of the fog"]
    found = av.evaluate(texts, ["secant", "lrp"], choices=quick)
    return {"validate": av.validate(TEXT, ["secant", "lrp"], choices=quick), "evaluate": found, "choose": found}


@pytest.fixture
def judge(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    import sys

    one = type("Loaded", (Judge,), {"calls": []})
    monkeypatch.setattr(sys.modules["clearhead.visualizer"], "AttentionVisualizer", one)
    return one


def asked_of(judge: Any) -> tuple[str, tuple[Any, dict[str, Any]]]:
    (call,) = [each for each in judge.calls if each[0] != "load"]
    return call


def test_flags_of_validate_are_one_call(judge: Any, real: dict[str, Any]) -> None:
    judge.found = real["validate"]
    flags = [
        "--methods",
        "lrp, secant",
        "--removals",
        "mask,zero",
        "--against",
        "lrp",
        "--target",
        "positive",
        "--no-sanity",
    ]
    result = run("validate", "--model", "m", "--text", "a film", *flags, "--baseline", "zero", "--json")
    assert result.exit_code == 0, result.output
    verb, (given, asked) = asked_of(judge)
    assert (verb, given) == ("validate", "a film")
    assert asked == {
        "methods": ["lrp", "secant"],
        "removals": ["mask", "zero"],
        "against": "lrp",
        "target": "positive",
        "baseline": "zero",
        "sanity": False,
    }
    assert Validation.from_dict(json.loads(result.stdout)).paragraph() == real["validate"].paragraph()


@pytest.mark.parametrize(("verb", "more"), [("evaluate", {"limit": 3}), ("choose", {"seconds": 5.0})])
def test_flags_about_data_are_one_call(judge: Any, real: dict[str, Any], verb: str, more: dict[str, Any]) -> None:
    judge.found = real[verb]
    flags = [each for name, value in more.items() for each in (f"--{name}", str(value))]
    result = run(verb, "--model", "m", "--data", "texts.txt", "--contrast", "others", *flags, "--json")
    assert result.exit_code == 0, result.output
    called, (given, asked) = asked_of(judge)
    assert (called, given) == (verb, Path("texts.txt"))
    assert asked == {"contrast": "others", **more}
    assert Evaluation.from_dict(json.loads(result.stdout)).inputs == 2


@pytest.mark.parametrize("verb", ["validate", "evaluate", "choose"])
def test_results_are_drawn_and_written(judge: Any, real: dict[str, Any], verb: str, tmp_path: Path) -> None:
    judge.found = real[verb]
    given = ["--text", "a film"] if verb == "validate" else ["--data", "texts.txt"]
    shown = run(verb, "--model", "m", *given)
    assert shown.exit_code == 0, shown.output
    assert "secant" in shown.stdout
    assert "chatter" not in shown.stdout
    for suffix in (".json", ".html", ".parquet", ".png"):
        out = tmp_path / f"out{suffix}"
        done = run(verb, "--model", "m", *given, "--out", str(out))
        assert done.exit_code == 0, done.output
        assert out.stat().st_size > 500
    both = run(verb, "--model", "m", *given, "--out", str(tmp_path / "x.json"), "--json")
    assert both.exit_code == 2
    assert "give one of them" in both.output


def test_a_prediction_is_validated_from_the_shell(tmp_path: Path) -> None:
    done = run("validate", "--model", SENTIMENT, "--text", TEXT, "--methods", "secant,rollout", "--removals", "mask")
    assert done.exit_code == 0, done.output
    assert "secant" in done.stdout
    assert "rollout" in done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--methods", "lrpp"], "Did you mean 'lrp'"),
        (["--removals", "blurr"], "Did you mean 'blur'"),
        (["--against", "secant", "--methods", "lrp"], "must be one of lrp"),
        (["--out", "x.docx"], "docx"),
    ],
)
def test_wrong_flags_are_one_message(flags: list[str], said: str) -> None:
    done = run("validate", "--model", SENTIMENT, "--text", TEXT, *flags)
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_not_there_is_one_message() -> None:
    done = run("evaluate", "--model", SENTIMENT, "--data", "nowhere.txt")
    assert done.exit_code == 2
    assert "nowhere.txt" in done.output
