"""What is kept comes back to the last bit, whatever happened to the end of the file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from clearhead.errors import OutputError
from clearhead.heads.store import Store

FOUND = {
    "a": np.array([1 / 3, -5e-324, 1.7976931348623157e308]),
    "b": np.array([]),
    "c": np.array([math.inf, math.nan]),
}


def same(store: Store, names: str) -> None:
    for name, expected in FOUND.items():
        assert (name in store) == (name in names)
        if name in names:
            np.testing.assert_array_equal(store[name], expected)
            assert store[name].dtype == np.float64


def test_what_was_kept_is_known_to_the_next(tmp_path):
    path = tmp_path / "new" / "folder" / "x.jsonl"
    first = Store(path)
    first.keep({"a": FOUND["a"]})
    first.keep({"b": FOUND["b"], "c": FOUND["c"]})
    same(first, "abc")
    same(Store(path), "abc")
    assert [json.loads(line)[0] for line in path.read_text().splitlines()] == ["a", "b", "c"]


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store()
    store.keep(FOUND)
    same(store, "abc")
    same(Store(), "")
    assert not list(tmp_path.iterdir())


def test_a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path):
    path = tmp_path / "x.jsonl"
    Store(path).keep({"a": FOUND["a"], "b": FOUND["b"]})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        store = Store(path)
        names = "ab"[: (end >= first - 1) + (end >= len(whole) - 1)]  # a line may lack its end
        same(store, names)
        store.keep({name: FOUND[name] for name in "abc" if name not in names})
        same(Store(path), "abc")


def test_a_name_is_made_once(tmp_path):
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return FOUND["a"]

    store = Store(tmp_path / "x.jsonl")
    for _ in range(2):
        np.testing.assert_array_equal(store.of("a", make), FOUND["a"])
    np.testing.assert_array_equal(Store(tmp_path / "x.jsonl").of("a", make), FOUND["a"])
    assert len(made) == 1


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Choose another with resume=\.\.\. \(--resume\)"):
        Store(tmp_path / "file" / "x.jsonl")
    store = Store(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").unlink()
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(OutputError, match="read and written"):
        store.keep(FOUND)
