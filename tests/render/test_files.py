"""Files are written whole or not at all, and what cannot be written is refused before anything slow."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clearhead.errors import OutputError, UsageError
from clearhead.maps import RelevanceMap
from clearhead.render import SUFFIXES, check_writable, files, save
from render.examples import ALL, adversarial, made, pair, review


@pytest.mark.parametrize("name", ALL)
def test_json_is_lossless(name, tmp_path):
    found = ALL[name]()
    again = RelevanceMap.load(save([found], tmp_path / "map.json"))
    assert again.to_dict() == found.to_dict()
    assert np.array_equal(again.relevance, found.relevance)


def test_several_maps_are_a_list(tmp_path):
    data = json.loads(save([review(), pair()], tmp_path / "maps.json").read_text(encoding="utf-8"))
    assert [RelevanceMap.from_dict(each).to_dict() for each in data] == [review().to_dict(), pair().to_dict()]


def test_json_has_no_infinity(tmp_path):
    path = save([made(["a"], [1.0], value=0.0)], tmp_path / "map.json")
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert data["conservation_error"] is None
    assert RelevanceMap.load(path).conservation_error == float("inf")


@pytest.mark.parametrize("suffix", [*(each for each, output in SUFFIXES.items() if not output.table), ".HTML"])
def test_every_suffix_is_written_and_nothing_is_left_beside_it(suffix, tmp_path):
    path = save([adversarial()], str(tmp_path / f"map{suffix}"))
    assert path == tmp_path / f"map{suffix}"
    assert path.stat().st_size > 500
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    written = save([review()], tmp_path / "map.json")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "map.json"
    link.symlink_to(tmp_path / "real" / "target.json")
    save([review()], link)
    assert link.is_symlink()
    assert RelevanceMap.load(tmp_path / "real" / "target.json").value == review().value


@pytest.mark.parametrize("name", ["map", "map.htm", "map.gif", ".json", "map.jsn"])
def test_an_unknown_suffix_is_refused_with_those_there_are(name, tmp_path):
    with pytest.raises(UsageError, match=r"must end in one of \.json, \.html, \.png, \.svg, \.pdf; found") as caught:
        check_writable(tmp_path / name)
    assert ("Did you mean '.html'?" in str(caught.value)) is (name == "map.htm")


def test_places_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path / "folder.json")
    with pytest.raises(OutputError, match=r"does not\. Make it first"):
        check_writable(tmp_path / "missing" / "map.json")
    with pytest.raises(OutputError, match="is not one"):
        check_writable(tmp_path / "file" / "map.json")


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    # Root may write anywhere, so the answer of the system is played.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=r"cannot\. Choose another"):
        check_writable(tmp_path / "map.json")


def test_checking_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "map.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_figure_shows_one_map(suffix, tmp_path):
    with pytest.raises(UsageError, match="shows one map; found 2"):
        save([review(), pair()], tmp_path / f"map{suffix}")
    with pytest.raises(UsageError, match="shows one map; found 5"):
        check_writable(tmp_path / f"map{suffix}", count=5)
    assert list(tmp_path.iterdir()) == []


def test_no_maps_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one map"):
        save([], tmp_path / "map.html")


def test_a_figure_without_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs matplotlib.*pip install 'clearhead\[plot\]'"):
        check_writable(tmp_path / "map.png")
    check_writable(tmp_path / "map.html")


@pytest.mark.parametrize("failing", ["make", "write", "replace"])
def test_what_was_there_stays_when_writing_fails(failing, tmp_path, monkeypatch):
    path = tmp_path / "map.json"
    path.write_text("before", encoding="utf-8")

    def fail(*_):
        raise OSError(28, "No space left on device")

    if failing == "make":
        monkeypatch.setitem(SUFFIXES, ".json", files.Output(make=lambda maps: 1 / 0))
    else:
        monkeypatch.setattr(*{"write": (os, "fsync"), "replace": (Path, "replace")}[failing], fail)
    with pytest.raises(ZeroDivisionError if failing == "make" else OutputError, match=r"division|No space left"):
        save([review()], path)
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_rendering_is_light_until_it_is_used():
    code = (
        "import sys; before = set(sys.modules); import clearhead.render\n"
        "heavy = {'torch', 'numpy', 'rich', 'jinja2', 'matplotlib', 'transformers'}\n"
        "assert not heavy & (set(sys.modules) - before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
