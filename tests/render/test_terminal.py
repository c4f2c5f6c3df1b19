"""What the terminal shows, at the widths people have, without colour, and through a pipe."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from clearhead import render
from render.examples import ALL, adversarial, leaking, long, made, pair, review

WIDTHS = [60, 80, 120, 200]


def shown(maps, width=80, **console):
    file = io.StringIO()
    render.show(maps, Console(file=file, width=width, **console))
    return file.getvalue()


def bars(text):
    """Labels and numbers of the lines that hold a bar, one column after the other."""
    return re.findall(r"(\S+(?: \d+)?) [▄▗▖ ]*│[▄▗▖ ]* ([+-]?\d+\.\d+)", text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ALL)
def test_nothing_is_wider_than_the_terminal(name, width):
    for line in shown([ALL[name]()], width).splitlines():
        assert cell_len(line) <= width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["review", "pair", "leaking", "open_books"])
def test_every_unit_has_a_bar_with_its_number(name, width):
    found = ALL[name]()
    numbers = [float(number) for _, number in bars(shown([found], width))]
    assert sorted(numbers) == pytest.approx(sorted(found.relevance.tolist()), abs=6e-4)
    assert sum(numbers) == pytest.approx(float(found.relevance.sum()), abs=1e-3)


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_grow_to_the_side_of_their_sign(width):
    lines = shown([leaking()], width).splitlines()
    negative = next(line for line in lines if "-1.900" in line)
    positive = next(line for line in lines if "+0.350" in line)
    assert "▄│" in negative
    assert "│▄" not in negative
    assert "│▄" in positive
    assert "▄│" not in positive
    assert negative.count("▄") > 4 * positive.count("▄")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ALL)
def test_the_books_add_up_as_printed(name, width):
    found = ALL[name]()
    lines = shown([found], width).splitlines()
    rule = next(n for n, line in enumerate(lines) if line.strip() and set(line.strip()) == {"─"})
    start = max(n for n, line in enumerate(lines[:rule]) if not line.strip())
    top = [line for line in lines[start + 1 : rule] if line.startswith("  ") and line[2] != " "]
    amounts = [line.split()[-1] for line in top]
    total = Decimal(lines[rule + 1].split()[-1])
    assert sum(Decimal(amount) for amount in amounts if "e" not in amount) == total
    assert float(total) == pytest.approx(found.value, abs=6e-4)


def test_many_units_are_cut_to_the_largest_and_the_rest_is_summed():
    found = long()
    text = shown([found])
    numbers = [float(number) for _, number in bars(text)]
    others = re.search(r"(\d+) others, together ([+-]\S+)", text)
    assert len(numbers) + int(others[1]) == len(found.units)
    assert sum(numbers) + float(others[2]) == pytest.approx(float(found.relevance.sum()), abs=0.05)


def test_leaks_are_named_with_their_modules():
    text = shown([leaking()])
    assert re.search(r"bias, not passed on +-0.230\s+encoder.layer.0.dense \(linear\) +-0.310", text)
    assert "returned where it leaked" in text
    assert text.index("returned where it leaked") > text.index("unaccounted")
    assert "! Relevance does not add up" in text
    assert "! The books balance only with what leaked" in text


def test_the_audit_is_a_line():
    assert "conservation error 1.8e-07 · residual 1.8e-07 · cancellation 2.22" in shown([review()])


def test_the_text_reads_as_it_was_written():
    assert "[CLS] A gripping, beautiful film, if not quite as moving as the book. [SEP]" in shown([review()])


def test_two_streams_stand_side_by_side_where_there_is_room():
    wide, narrow = shown([pair()], 80), shown([pair()], 60)
    assert wide.count("│") == narrow.count("│") == 25
    assert len(wide.splitlines()) < len(narrow.splitlines()) - 8


def test_markup_and_control_characters_are_only_text():
    text = shown([adversarial()], 120, force_terminal=True, color_system="truecolor")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    assert "[bold red]" in plain
    assert "[/]" in plain
    assert "[red]evil[/red]" in plain
    assert not set(plain) & set("\x00\x07\x9b\u202e\u2028\ud800")


def test_colours_are_used_and_readable_where_there_are_colours():
    text = shown([review()], 80, force_terminal=True, color_system="truecolor")
    assert len(set(re.findall(r"48;2;\d+;\d+;\d+", text))) >= 8


def test_a_light_terminal_gets_the_light_scale(monkeypatch):
    monkeypatch.setenv("COLORFGBG", "0;15")
    light = shown([review()], 80, force_terminal=True, color_system="truecolor")
    monkeypatch.setenv("COLORFGBG", "15;0")
    dark = shown([review()], 80, force_terminal=True, color_system="truecolor")
    strongest = "48;2;{};{};{}".format
    assert strongest(0x6F, 0xA8, 0xEE) in light
    assert strongest(0x2A, 0x62, 0xB3) in dark


def test_without_colour_strength_and_sign_still_show(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown([review()], 80, force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", text)
    assert re.search(r"\x1b\[1mbeautiful", text)
    assert re.search(r"\x1b\[1;4mnot", text)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_pipe_gets_plain_text_in_any_encoding(encoding):
    folder = Path(__file__).parents[1]
    code = "from render.examples import adversarial, review; from clearhead import render; "
    code += "render.show([review(), adversarial()])"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "COLUMNS": "80",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    text = done.stdout.decode(encoding)
    assert "\x1b" not in text
    assert "beautiful" in text
    assert ("│" in text) is (encoding == "utf-8")
    assert ("\\u5b57" in text) is (encoding != "utf-8")


def test_several_maps_stand_below_each_other():
    text = shown([review(), leaking()])
    assert text.index("= 2.207") < text.index("= -2.030")


@pytest.mark.parametrize("odd", [made([], []), made(["a"], [0.0]), made(["a"], [float("nan")])])
def test_odd_maps_are_shown(odd):
    assert "positive against negative" in shown([odd])
