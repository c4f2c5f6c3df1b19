"""Verdicts drawn: each word and number where it belongs, chance in sight, everything in bounds, every text a text."""

from __future__ import annotations

import csv
import io
import re
from itertools import combinations

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from clearhead import render
from clearhead.render import figure, fragment
from clearhead.render.html import page
from clearhead.render.judged_removals import SURE, trial
from clearhead.render.judgement import judgement
from clearhead.validations import METRICS, Evaluation, Validation
from render.drawn_examples import EVIL
from render.examples import BREAKOUT, review
from render.judged_examples import JUDGED, averaged, eighteen, few, five, hostile, one, sane, two
from render.test_generation import MORE
from render.test_html import ALLOWED, Reader, classes, number
from render.test_pictures import shown

TAGS = ALLOWED | MORE | {"small", "path", "i"}
WORDS = {"trust": "trust", "care": "care", "reject": "do not use", "unknown": "cannot say"}


@pytest.fixture(params=JUDGED)
def found(request):
    return JUDGED[request.param]()


def inside(reader, element):
    return [each for each in reader.found if any(up is element for up in each["inside"])]


def rows(reader, section, n=0):
    """The rows of the n-th table of a section: names and cells."""
    held = [e for e in reader.found if e["tag"] == "table" and any(section in classes(up) for up in e["inside"])]
    lines = [e for e in inside(reader, held[n]) if e["tag"] == "tr"]
    return [[e for e in inside(reader, line) if e["tag"] in ("th", "td")] for line in lines]


# ---- verdicts ------------------------------------------------------------------------------------------------------


def test_every_method_has_its_word_its_sentence_and_its_reasons(found):
    reader = Reader(page([found]))
    (section,) = reader.of("rulings")
    held = [e for e in inside(reader, section) if e["tag"] == "li"]
    order = sorted(found.verdicts, key=lambda each: list(WORDS).index(each.word))
    assert len(held) == len(order)
    for element, verdict in zip(held, order, strict=True):
        (badge,) = [e for e in inside(reader, element) if "badge" in classes(e)]
        assert badge["text"].split(maxsplit=1)[1] == WORDS[verdict.word]
        assert verdict.word in classes(element)
        if found.model != EVIL:
            text = element["text"].replace("−", "-")
            assert all(each in text for each in (*verdict.evidence, *verdict.reasons)) or EVIL in verdict.method


def test_words_differ_by_more_than_colour():
    assert len({render.judgement.MARKS[word] for word in WORDS}) == 4
    words = {each.word for name in ("judged", "judged_few") for each in JUDGED[name]().verdicts}
    assert words >= {"trust", "reject", "unknown"}


def test_what_was_checked_of_none_is_said_once():
    text = Reader(page([five()])).of("rulings")[0]["text"]
    assert text.count("Not checked") == 1


# ---- removing units ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [five, eighteen, two, averaged])
def test_the_table_holds_every_figure_and_marks_the_best(make):
    made = make()
    reader = Reader(page([made]))
    tables = [e for e in reader.found if e["tag"] == "table" and any("removed" in classes(u) for u in e["inside"])]
    assert len(tables) == len(made.faithfulness)
    names = [name for name in METRICS if name not in ("morf", "lerf", "max-sensitivity")]
    for n, each in enumerate(made.faithfulness):
        head, *lines = rows(reader, "removed", n)
        assert [e["text"].replace("\u00ad", "")[:-2] for e in head[1:-1]] == names
        held = {line[0]["text"]: line[1:] for line in lines}
        assert set(held) == {row.method for row in each.rows}
        spreads = [each.row(name).figures["dA"].value for name in list(held)[: len(made.methods)]]
        assert spreads == sorted(spreads, reverse=True)
        for column, name in enumerate(names):
            sign = 1 if METRICS[name].better == "higher" else -1
            values = {m: each.row(m).figures[name].value for m in made.methods}
            best = max(values, key=lambda m: sign * values[m])
            assert "best" in classes(held[best][column])
            for method, value in values.items():
                cell = held[method][column]
                text = re.match(r"[\d.−]+", cell["text"])[0].replace("−", "-")
                assert float(text) == pytest.approx(value, abs=0.5 * 10 ** -len(text.partition(".")[2]) + 1e-12)
                assert ("by-chance" in classes(cell)) is chance(each.row(method).figures[name])


def chance(figure):
    """Whether the stretch of a figure and that of chance have a point in common."""
    if figure.chance_low is None:
        return False
    low, high = (figure.value, figure.value) if figure.low is None else (figure.low, figure.high)
    return max(low, figure.chance_low) <= min(high, figure.chance_high)


def test_numbers_of_a_column_have_as_many_decimals():
    for line in zip(*(line.cells for line in trial(eighteen().faithfulness[0], {}).lines), strict=True):
        assert len({len(cell.shown.partition(".")[2]) for cell in line if cell.shown != "–"}) == 1


def test_bars_are_as_long_as_their_dA():
    made = five()
    reader = Reader(page([made]))
    bars = reader.of("bar", inside="removed")[: len(made.methods)]
    widths = [float(re.search(r"width:([\d.]+)%", e["attributes"]["style"])[1]) for e in bars]
    values = sorted((abs(each.figures["dA"].value) for each in made.faithfulness[0].rows[:5]), reverse=True)
    assert [w / widths[0] for w in sorted(widths, reverse=True)] == pytest.approx(
        [v / values[0] for v in values], abs=1e-3
    )


def points(path):
    return np.array([[float(x) for x in pair.split()] for pair in re.split("[ML]", path.rstrip("Z"))[1:]])


@pytest.mark.parametrize("make", [five, averaged])
def test_curves_lie_where_their_numbers_say_with_random_orders_behind(make):
    made = make()
    reader = Reader(page([made]))
    drawing = judgement(made).trials[0].curves
    panels = reader.of("panel")[: len(made.methods)]
    for element, panel in zip(panels, drawing.panels, strict=True):
        row = made.faithfulness[0].row(panel.method)
        paths = {
            next(iter(classes(e) - {"line"})): e["attributes"]["d"]
            for e in inside(reader, element)
            if "line" in classes(e)
        }
        for order, curve in zip(("most", "least"), row.curves, strict=True):
            assert curve.order == order
            down = 100 * (drawing.high - curve.value) / (drawing.high - drawing.low)
            assert points(paths[order]) == pytest.approx(np.stack([100 * curve.removed, down], 1), abs=0.006)
        (band,) = [e for e in inside(reader, element) if e["tag"] == "path" and "band" in classes(e)]
        random = made.faithfulness[0].row("random order").curves[0]
        upper = 100 * (drawing.high - random.value - SURE * random.spread) / (drawing.high - drawing.low)
        assert points(band["attributes"]["d"])[: len(upper), 1] == pytest.approx(upper, abs=0.006)
    ticks = [float(number(e)) for e in reader.of("number", inside="ticks")]
    assert all(drawing.low <= each <= drawing.high for each in ticks)


# ---- methods against methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [five, eighteen, averaged])
def test_the_matrix_holds_every_pair_and_hatches_chance(make):
    made = make()
    reader = Reader(page([made]))
    for n, measure in enumerate(("spearman", "kendall", "feature", "rank", "sign", "signed-rank")):
        _, *lines = rows(reader, "agreements", n)
        cells = {line[0]["text"]: dict(zip(made.methods, line[1:], strict=True)) for line in lines}
        for first, second in combinations(made.methods, 2):
            figure = made.agreement.pair(first, second).figures.get(measure)
            for cell in (cells[first][second], cells[second][first]):
                if figure is None or figure.value is None:
                    assert cell["text"] == "–"
                    continue
                assert float(number(cell)) == pytest.approx(figure.value, abs=0.0051)
                assert ("hatched" in classes(cell)) is chance(figure)
                assert f"{figure.value:.2f}".replace("-0.00", "0.00") in cell["attributes"]["title"].replace("−", "-")


def test_a_dash_is_explained():
    text = Reader(page([five()])).of("agreements")[0]["text"]
    assert "one of the two has no sign" in text


def test_paired_tests_turn_with_their_row_and_hatch_what_may_be_chance():
    made = averaged()
    reader = Reader(page([made]))
    _, *lines = rows(reader, "contests")
    names = [line[0]["text"] for line in lines]
    cells = {line[0]["text"]: dict(zip(names, line[1:], strict=True)) for line in lines}
    own = [each for each in made.contests if each.removal == made.faithfulness[0].removal]
    assert len(own) == 21
    for each in own:
        for turn, cell in ((1, cells[each.first][each.second]), (-1, cells[each.second][each.first])):
            assert float(number(cell)) == pytest.approx(turn * each.difference.value, abs=0.0051)
            assert ("hatched" in classes(cell)) is (each.adjusted >= 0.05)
    assert {each.adjusted < 0.05 for each in own} == {True, False}


# ---- the rest ------------------------------------------------------------------------------------------------------


def test_sanity_tests_say_what_fails():
    reader = Reader(page([sane()]))
    _, seeing, blind = rows(reader, "tested")
    assert [cell["text"] for cell in seeing[1:]][-1] == "not tested"
    assert ["depends" in cell["text"] and "does not" not in cell["text"] for cell in seeing[1:3]] == [True, True]
    assert all("does not depend" in cell["text"] and "fails" in classes(cell) for cell in blind[1:3])
    assert "not tested here" in Reader(page([five()])).of("tested")[0]["text"]
    assert "layer 0" in reader.of("tested")[0]["text"]


def test_an_evaluation_says_what_was_skipped_and_what_was_chosen():
    text = Reader(page([averaged()])).of("judgement")[0]["text"]
    assert "2 inputs: too long" in text
    assert "Chosen: secant of 5 methods on 12 inputs" in text
    assert "Chosen" not in Reader(page([five()])).of("judgement")[0]["text"]


def test_thresholds_and_the_recipe_are_there():
    text = Reader(page([five()])).of("judgement")[0]["text"]
    for name, meaning in five().thresholds.meanings().items():
        assert name in text
        assert meaning in text
    assert "orders6" in text.replace("\n", "")


def test_a_page_has_the_style_only_if_it_needs_it():
    assert "rulings" not in page([review()])
    assert page([five(), review()]).count("explanation-2") == 2
    assert "rulings" in fragment([five()])


def test_texts_are_texts(found):
    reader = Reader(page([found]))
    assert {e["tag"] for e in reader.found} <= TAGS
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "\x1b" not in shown([found])


def test_hostile_texts_are_shown_as_they_are():
    text = Reader(page([hostile()])).of("judgement")[0]["text"]
    assert "<b onmouseover=alert(1)>" in text
    assert BREAKOUT[:8] in text


# ---- the terminal --------------------------------------------------------------------------------------------------


def test_every_column_fits_in_eighty_columns_and_what_does_not_fit_in_sixty_is_named():
    heads = "dA ↑ compr ↑ suff ↓ del ↓ ins ↑ infid ↓ ms".split()
    assert any(line.split() == heads for line in shown([eighteen()]).splitlines())
    assert "not shown here: " in shown([averaged()], width=60)
    assert "not shown here: " not in shown([eighteen()])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_runs_over_the_edge_and_every_method_is_named(found, width):
    text = shown([found], width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    said = text.replace("\n", "")
    for verdict in found.verdicts:
        assert verdict.method in said or EVIL in verdict.method or BREAKOUT in verdict.method
    assert sum(said.count(word.upper()) for word in WORDS.values()) == len(found.verdicts)


def test_each_pair_stands_once_in_the_terminal():
    made = eighteen()
    text = shown([made]).split("agreement: ")[1]
    figures = re.findall(r"\(?-?\d\.\d\d\)?(?= |$|\n|-|\()", text.split("By chance")[1].split("brackets")[1])
    assert len(figures) == 18 * 17 // 2
    held = sorted(f"{p.figures['spearman'].value:.2f}".replace("-0.00", "0.00") for p in made.agreement.pairs)
    assert sorted(each.strip("()") for each in figures) == held


def test_a_console_without_letters_is_served():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render.show([averaged()], Console(file=file, width=80))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")
    assert "TRUST" in text
    assert "compr ^" in text


# ---- figures and files ---------------------------------------------------------------------------------------------


def test_a_figure_has_a_place_for_every_part(found):
    _, axes = figure.figure(found)
    ways, methods = len(found.faithfulness), len(found.methods)
    known = any(pair.figures["spearman"].value is not None for pair in found.agreement.pairs)
    assert len(axes) == 1 + ways + (methods if ways else 0) + known
    boxes = [each.get_position() for each in axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for a, b in combinations(boxes, 2):
        assert min(a.x1, b.x1) <= max(a.x0, b.x0) + 1e-9 or min(a.y1, b.y1) <= max(a.y0, b.y0) + 1e-9
    if ways:
        widths = sorted(patch.get_width() for patch in axes[1].patches if hasattr(patch, "get_width"))
        spreads = [row.figures["dA"].value for row in found.faithfulness[0].rows if row.method != "random order"]
        for each in spreads:
            assert np.min(np.abs(np.array(widths) - each)) < 1e-9


@pytest.mark.parametrize("make", [five, averaged])
@pytest.mark.parametrize("suffix", [".json", ".html", ".png", ".svg", ".pdf", ".csv", ".parquet"])
def test_every_suffix_is_written_the_same_twice(make, suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra `corpus`")
    made = make()
    first, second = made.save(tmp_path / f"a{suffix}"), made.save(tmp_path / f"b{suffix}")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 1_000
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_table_has_a_row_per_input_method_removal_and_metric(tmp_path):
    made = averaged()
    with made.save(tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    expected = sum(12 * len(row.figures) for each in made.faithfulness for row in each.rows)
    assert (
        len(table)
        == expected
        == len({tuple(row[k] for k in ("input", "method", "removal", "metric")) for row in table})
    )
    for each in made.faithfulness:
        for row in each.rows:
            for name, figure_ in row.figures.items():
                own = [r for r in table if (r["method"], r["removal"], r["metric"]) == (row.method, each.removal, name)]
                assert np.mean([float(r["value"]) for r in own]) == pytest.approx(figure_.value, rel=1e-12)
                assert {(r["reference"], r["better"]) for r in own} == {(str(row.reference), METRICS[name].better)}


def test_a_table_of_one_prediction_has_its_chance(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `corpus`")
    made = two()
    table = parquet.read_table(made.save(tmp_path / "t.parquet"))
    for row in table.to_pylist():
        own = made.faithfulness[0].row(row["method"]).figures[row["metric"]]
        assert (row["value"], row["chance_low"], row["input"]) == (own.value, own.chance_low, 0)
    assert table.schema.metadata[b"target"] == str(made.target).encode()
    assert table.schema.metadata[b"verdicts"].decode().splitlines() == list(map(str, made.verdicts))


def test_drawn_again_from_a_file_it_looks_the_same(found, tmp_path):
    kind = Validation if isinstance(found, Validation) else Evaluation
    assert page([kind.load(found.save(tmp_path / "f.json"))]) == page([found])


def test_little_is_drawn_where_little_is_known():
    text = Reader(page([few()])).of("judgement")[0]["text"]
    assert "When units are removed" not in text
    assert "Do they agree" not in text
    assert "Do they agree" not in Reader(page([one()])).of("judgement")[0]["text"]
