"""A generation: a matrix with a row per produced token, each with books of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearhead import Target, Unit
from clearhead.errors import ClearheadError, OutputError, UsageError
from clearhead.generations import GenerationMap
from clearhead.maps import LedgerEntry, Recipe, RelevanceMap

PROMPT, PRODUCED = "Two young", " people are walking. They talk"
READ = ["Two", " yo", "ung"]
MADE = [" people", " are", " walk", "ing", ".", " They", " talk"]
READ_WORDS, MADE_WORDS = [0, 1, 1], [0, 1, 2, 2, 2, 3, 4]


def columns() -> tuple[Unit, ...]:
    """What was read and what was produced, with places and words."""
    found: list[Unit] = []
    for stream, pieces, words in (("input", READ, READ_WORDS), ("generated", MADE, MADE_WORDS)):
        at = 0
        for piece, word in zip(pieces, words, strict=True):
            start = at + len(piece) - len(piece.lstrip())
            at += len(piece)
            found.append(Unit(index=len(found), text=piece.strip(), stream=stream, start=start, end=at, word=word))
    return tuple(found)


def row(t: int, **changes: Any) -> RelevanceMap:
    """The map of produced token t: all that was read, and the tokens produced before it."""
    units = columns()[: len(READ) + t]
    relevance = np.random.default_rng(t).normal(size=len(units))
    fields = {
        "method": "lrp",
        "model": "toy",
        "task": "causal-lm",
        "target": Target(kind="token", label=MADE[t], index=100 + t, position=t),
        "value": float(relevance.sum()) * (1 + t * 1e-6),
        "units": units,
        "relevance": relevance,
        "texts": {"input": PROMPT, "generated": PRODUCED},
        "ledger": (LedgerEntry(cause="bias", module=f"layer.{t}", operation="linear", relevance=0.5, returned=True),),
        "warnings": ("the same note", f"a note on {t}"),
        "recipe": Recipe(settings={"method": "lrp"}, model_fingerprint="0123"),
    }
    return RelevanceMap(**{**fields, **changes})


@pytest.fixture
def rows() -> list[RelevanceMap]:
    return [row(t) for t in range(len(MADE))]


@pytest.fixture
def whole(rows: list[RelevanceMap]) -> GenerationMap:
    return GenerationMap(rows=tuple(rows))


# ---- the matrix -----------------------------------------------------------------------------------------------------


def test_the_matrix_holds_the_rows_and_nan_where_nothing_was_yet(
    whole: GenerationMap, rows: list[RelevanceMap]
) -> None:
    matrix = whole.relevance
    assert matrix.shape == (len(MADE), len(READ) + len(MADE) - 1)
    for t, i in np.ndindex(matrix.shape):
        if i < len(READ) + t:
            assert matrix[t, i] == rows[t].relevance[i]
        else:
            assert np.isnan(matrix[t, i])
    np.testing.assert_array_equal(whole.value, [each.value for each in rows])


def test_its_parts_are_the_rows(whole: GenerationMap, rows: list[RelevanceMap]) -> None:
    assert len(whole) == len(MADE)
    assert list(whole) == rows
    assert whole[2] is rows[2]
    assert whole[-1] is rows[-1]
    with pytest.raises(IndexError):
        whole[len(MADE)]


def test_it_knows_what_was_read_and_produced(whole: GenerationMap) -> None:
    assert whole.tokens == tuple(MADE)
    assert whole.units == columns()[:-1]
    assert whole.streams == ("input", "generated")
    assert whole.texts == {"input": PROMPT, "generated": PRODUCED}
    assert (whole.model, whole.method, whole.task) == ("toy", "lrp", "causal-lm")
    assert whole.recipe.model_fingerprint == "0123"


def test_a_stream_is_a_sum_per_token_and_streams_add_up_to_it(whole: GenerationMap) -> None:
    matrix = whole.relevance
    np.testing.assert_allclose(whole.stream("input"), matrix[:, : len(READ)].sum(1))
    np.testing.assert_allclose(whole.stream("generated"), np.nansum(matrix[:, len(READ) :], axis=1))
    assert whole.stream("generated")[0] == 0.0
    total = whole.stream("input") + whole.stream("generated")
    np.testing.assert_allclose(total, [each.relevance.sum() for each in whole])
    with pytest.raises(UsageError, match="The streams are input, generated; found 'encoder'"):
        whole.stream("encoder")


def test_one_row_is_a_generation(rows: list[RelevanceMap]) -> None:
    single = GenerationMap(rows=(rows[0],))
    np.testing.assert_array_equal(single.relevance, [rows[0].relevance])
    assert single.streams == ("input",)


# ---- the books ------------------------------------------------------------------------------------------------------


def test_the_books_are_those_of_the_worst_row(rows: list[RelevanceMap]) -> None:
    bad = replace(rows[3], value=rows[3].value * 1.5)
    whole = GenerationMap(rows=(*rows[:3], bad, *rows[4:]))
    assert whole.conservation_error == bad.conservation_error == max(each.conservation_error for each in whole)
    assert whole.residual == bad.residual
    assert GenerationMap(rows=tuple(rows)).conserves()
    assert not whole.conserves()
    assert whole.conserves(threshold=0.5)


def test_warnings_are_told_once_and_the_ledger_holds_all(whole: GenerationMap) -> None:
    assert whole.warnings == ("the same note", *(f"a note on {t}" for t in range(len(MADE))))
    assert [entry.module for entry in whole.ledger] == [f"layer.{t}" for t in range(len(MADE))]


# ---- words and sentences --------------------------------------------------------------------------------------------


def test_words_sum_columns_and_keep_the_rows(whole: GenerationMap) -> None:
    found = whole.words()
    expected = ["Two", "young", "people", "are", "walking.", "They"]
    assert [unit.text for unit in found.units] == expected
    assert found.tokens == whole.tokens
    groups = [[0], [1, 2], [3], [4], [5, 6, 7], [8]]
    for t, line in enumerate(found.relevance):
        for n, group in enumerate(groups):
            known = [i for i in group if i < len(READ) + t]
            if known:
                assert line[n] == pytest.approx(whole[t].relevance[known].sum())
            else:
                assert np.isnan(line[n])
    for one, other in zip(found, whole, strict=True):
        assert one.relevance.sum() == pytest.approx(other.relevance.sum())
        assert one.conservation_error == pytest.approx(other.conservation_error, rel=1e-6, abs=1e-15)


def test_sentences_sum_columns_and_keep_the_rows(whole: GenerationMap) -> None:
    found = whole.sentences()
    assert [unit.text.strip() for unit in found.units] == [PROMPT, "people are walking.", "They"]
    assert found.tokens == whole.tokens
    np.testing.assert_allclose(
        found.relevance[-1], [whole[-1].relevance[held].sum() for held in (slice(0, 3), slice(3, 8), slice(8, 9))]
    )
    np.testing.assert_allclose(np.nansum(found.relevance, axis=1), np.nansum(whole.relevance, axis=1))
    assert np.isnan(found.relevance[0, 1:]).all()


# ---- what cannot be -------------------------------------------------------------------------------------------------


def test_no_rows_are_no_generation() -> None:
    with pytest.raises(UsageError, match="at least one produced token"):
        GenerationMap(rows=())


def test_rows_of_different_texts_are_refused(rows: list[RelevanceMap]) -> None:
    other = rows[0].renamed([replace(unit, text=unit.text.upper()) for unit in rows[0].units])
    with pytest.raises(UsageError, match="must be the first of those of the last"):
        GenerationMap(rows=(other, *rows[1:]))


def test_it_cannot_be_changed(whole: GenerationMap, rows: list[RelevanceMap]) -> None:
    with pytest.raises(AttributeError):
        whole.rows = ()
    whole.relevance[:] = 0
    np.testing.assert_array_equal(whole.relevance[-1], rows[-1].relevance)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_json_brings_everything_back(whole: GenerationMap, tmp_path: Path) -> None:
    file = whole.save(tmp_path / "made.json")
    found = GenerationMap.load(file)
    assert len(found) == len(whole)
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_array_equal(one.relevance, other.relevance)
        for name in ("units", "target", "value", "texts", "ledger", "warnings", "recipe", "model", "method", "task"):
            assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(found.relevance, whole.relevance)
    assert json.loads(json.dumps(whole.to_dict(), allow_nan=False)) == json.loads(file.read_text(encoding="utf-8"))


def test_a_word_map_comes_back_too(whole: GenerationMap, tmp_path: Path) -> None:
    found = GenerationMap.load(whole.words().save(tmp_path / "made.json"))
    np.testing.assert_array_equal(found.relevance, whole.words().relevance)


def test_each_row_in_the_file_is_a_map_as_published(whole: GenerationMap) -> None:
    data = whole.to_dict()
    assert data["schema"] == 1
    assert data["rows"] == [each.to_dict() for each in whole]
    np.testing.assert_array_equal(RelevanceMap.from_dict(data["rows"][2]).relevance, whole[2].relevance)


def test_other_files_are_told_apart(whole: GenerationMap, tmp_path: Path) -> None:
    single = whole[0].save(tmp_path / "single.json")
    with pytest.raises(UsageError, match=r"with `rows`.*RelevanceMap"):
        GenerationMap.load(single)
    several = whole.save(tmp_path / "several.json")
    with pytest.raises(ClearheadError, match=r"GenerationMap"):
        RelevanceMap.load(several)


@pytest.mark.parametrize("content", ["", "{", "\x00", '{"rows": 3}', '{"schema": 1, "rows": [{"schema": 1}]}'])
def test_what_is_no_saved_generation_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(OutputError, match=r"odd\.json"):
        GenerationMap.load(file)


def test_a_file_of_another_schema_is_refused(whole: GenerationMap) -> None:
    data = whole.to_dict()
    data["rows"] = [{**each, "schema": 2} for each in data["rows"]]
    with pytest.raises(UsageError, match="reads schema 1; found 2"):
        GenerationMap.from_dict(data)
    with pytest.raises(UsageError, match="reads schema 1; found 2"):
        GenerationMap.from_dict({**whole.to_dict(), "schema": 2})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing\.json"):
        GenerationMap.load(tmp_path / "missing.json")


def test_its_short_form_says_what_it_is(whole: GenerationMap) -> None:
    assert "lrp of 7 tokens over 9 units" in repr(whole)


def test_a_row_that_is_not_a_number_is_never_hidden(whole: GenerationMap) -> None:
    odd = replace(whole[0], relevance=np.full(len(whole[0].units), np.nan))
    for rows in ((odd, *whole.rows[1:]), (*whole.rows[1:], odd)):
        found = GenerationMap(rows=rows)
        assert np.isnan(found.conservation_error)
        assert np.isnan(found.residual)
        assert not found.conserves()
    assert not replace(whole[0], relevance=np.full(len(whole[0].units), np.inf)).conserves()
