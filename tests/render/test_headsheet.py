"""Reports on heads drawn: every number where it belongs, streams apart, bounded, and every text a text."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from rich.cells import cell_len

from clearhead import render
from clearhead.errors import UsageError
from clearhead.headreports import Curve, HeadReport, Pruning
from clearhead.render import clusterings, fragment, paint, tables
from clearhead.render.headsheet import CELLS, TOP, sheet
from clearhead.render.html import page
from clearhead.render.prunings import NO_BAND, UNTRIED, pruning
from render.drawn_examples import EVIL
from render.examples import BREAKOUT, review
from render.report_examples import (
    REPORTS,
    bare,
    classifier,
    curves,
    empty,
    grouped,
    heads,
    hostile,
    huge,
    losing,
    many,
    odd,
    one,
    report,
    translator,
)  # fmt: skip
from render.test_generation import MORE
from render.test_html import ALLOWED, Reader, classes, number
from render.test_pictures import shown, unpacked
from render.unclaimed_examples import rollout

TAGS = ALLOWED | MORE | {"small", "path"}


@pytest.fixture(params=REPORTS)
def found(request):
    return REPORTS[request.param]()


def within(element, name):
    return any(name in classes(up) for up in element["inside"])


def squares(reader):
    """The cells of the tables of importance: text of the share, and rank."""
    inside = [e for e in reader.found if e["tag"] == "td" and within(e, "importances")]
    return [e for e in inside if "unseen" not in classes(e)]


@pytest.mark.parametrize("make", [classifier, translator, grouped, bare])
def test_every_head_has_its_share_and_rank(make):
    made = make()
    cells = squares(Reader(page([made])))
    shares = made.importance / made.importance.sum()
    ranks = 1 + np.array([int((made.importance > each).sum()) for each in made.importance])
    assert [e["text"] for e in cells] == [f"{100 * s:.1f}{r}" for s, r in zip(shares, ranks, strict=True)]
    for e, head, share in zip(cells, made.heads, shares, strict=True):
        assert e["attributes"]["title"].startswith(str(head))
        step = round(20 * share / shares.max())
        assert (f"p{step}" if step else "zero") in classes(e)


def test_streams_stand_apart_and_hold_what_their_heads_hold():
    reader, made = Reader(page([translator()])), translator()
    shares = made.importance / made.importance.sum()
    for n, (each, stream) in enumerate(zip(reader.of("held"), ("encoder", "decoder", "cross"), strict=True)):
        held = f"{100 * shares[48 * n : 48 * n + 48].sum():.1f} %"
        assert each["text"] == f"{stream} · 6 layers, 48 heads · {held} of all importance"
    assert len(reader.of("constellation")) == 3


def test_the_first_ten_are_those_of_largest_importance():
    made = classifier()
    order = np.argsort(-made.importance)[:TOP]
    rows = Reader(page([made])).of("ranked")[0]["text"].split("gradient-weighted")[1]
    for n, top in zip(order, sheet(made).top, strict=True):
        assert top.name == str(made.heads[n])
        assert float(top.importance.shown) == pytest.approx(made.importance[n], abs=1e-5)
        assert float(top.error) == pytest.approx(made.error[n], abs=1e-5)
        assert float(top.weighted) == pytest.approx(made.weighted[n], abs=1e-4)
        assert float(top.relevance) == pytest.approx(made.relevance[n], abs=1e-4)
        assert (top.pattern, top.confidence) == (made.patterns[n].name, f"{made.patterns[n].confidence:.2f}")
        for text in (top.name, top.importance.shown, top.error, top.share, top.weighted, top.relevance, top.pattern):
            assert text in rows
    share = made.importance[order].sum() / made.importance.sum()
    assert sheet(made).top_share == f"{100 * share:.1f}"


def test_what_was_not_asked_for_has_no_column_and_no_section():
    reader = Reader(page([bare()]))
    assert [e["text"] for e in reader.found if e["tag"] == "th" and within(e, "ranked")][:4] == [
        "rank", "head", "importance", "share"]  # fmt: skip
    text = reader.of("sheet")[0]["text"]
    assert "gradient-weighted" not in text
    assert "LRP" not in text
    assert "What the heads look at" not in text
    assert UNTRIED in text
    assert "Key-value" not in shown([bare()])


def test_thousands_of_heads_are_one_image_and_a_thousand_are_a_table():
    assert len(many().heads) <= CELLS < len(huge().heads)
    reader = Reader(page([many()]))
    assert len(squares(reader)) == 1024
    assert len(reader.found) < 8_000
    reader = Reader(page([huge()]))
    assert squares(reader) == []
    assert len(reader.found) < 1_500
    (image,) = [e["attributes"] for e in reader.found if e["tag"] == "image"]
    dots = np.asarray(unpacked(image["href"]).convert("RGBA"))[..., 3]
    expected = huge().importance.reshape(96, 96)
    assert np.abs(dots - 255 * expected / expected.max()).max() <= 0.51
    assert image["href"] == paint.faded(sheet(huge()).grids[0].dots)
    assert len(page([huge()])) < 1_000_000


# ---- pruning -------------------------------------------------------------------------------------------------------


def points(path):
    return np.array([[float(x) for x in pair.split()] for pair in re.split("[ML]", path.rstrip("Z"))[1:]])


def test_lines_and_band_are_drawn_to_the_axis():
    drawing = sheet(classifier()).pruning
    assert (drawing.low, drawing.high) == (0.5, 1.0)
    by_name = {line.name: points(line.path) for line in drawing.lines}
    source = {each.order: each for each in classifier().curves}
    for name in ("importance", "iterative", "worst"):
        expected = np.stack([100 * source[name].removed, 100 * (1.0 - source[name].metric) / 0.5], 1)
        assert by_name[name] == pytest.approx(expected, abs=0.006)
    band = source["random"].metric
    middle = 100 * (1.0 - np.median(band, 0)) / 0.5
    assert by_name["random, median"][:, 1] == pytest.approx(middle, abs=0.006)
    edges = points(drawing.bands[0].path)
    assert edges[:13, 1] == pytest.approx(100 * (1 - band.max(0)) / 0.5, abs=0.006)
    assert edges[13:, 1] == pytest.approx(100 * (1 - band.min(0))[::-1] / 0.5, abs=0.006)
    reader = Reader(page([classifier()]))
    assert [number(e) for e in reader.of("number", inside="ticks")] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]
    assert len([e for e in reader.found if e["tag"] == "tr" and within(e, "pruned")]) == 1 + 13


@pytest.mark.parametrize("beats", [True, False])
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_whether_importance_beats_the_random_band_is_said(beats, metric):
    made = curves(beats=beats, orders=20)
    if metric == "loss":
        made = [Curve(order=c.order, removed=c.removed, metric=-c.metric, metric_name="loss") for c in made]
    found = pruning(made)
    by_name = {c.order: c for c in made}
    half = (by_name["random"].removed > 0) & (by_name["random"].removed <= 0.5)
    sign = -1 if metric == "loss" else 1
    for name, said in zip(("importance", "iterative"), found.findings, strict=True):
        better = (sign * by_name[name].metric[half].mean() > sign * by_name["random"].metric[:, half].mean(1)).sum()
        verb = "beats" if better >= 18 else "does not beat"
        assert said.startswith(f"{name.capitalize()} {verb} random orders over the first half of the heads: ")
        assert f"better than {better} of 20" in said
    assert "does not beat" in found.findings[0] or beats


def test_the_largest_share_that_can_go_is_that_of_the_test_or_of_a_hundredth():
    made = curves()
    found = pruning(made)
    kept = {c.order: c.removed[c.metric >= 0.99 * c.metric[0]].max() for c in made[:2]}
    assert found.goes == max(kept.values())
    assert f"{100 * found.goes:.0f} % of heads can go (iterative) while at most 1 %" in found.goes_said
    tested = Pruning(curves=made, order=(), documents=872, free=0.25, test="McNemar", beats_random=True)
    found = pruning(made, tested)
    assert found.goes == 0.25
    assert "without a significant loss (McNemar, 872 documents)" in found.goes_said
    nothing = Pruning(curves=made, order=(), documents=872, free=0.0, test="McNemar", beats_random=True)
    assert pruning(made, nothing).goes is None


def test_without_a_band_the_page_says_that_importance_says_little():
    assert NO_BAND in Reader(page([translator()])).of("caveat")[0]["text"]
    assert "Budhraja et al. 2020" in Reader(page([classifier()])).of("caveat")[0]["text"]
    assert "Budhraja" in shown([bare()])


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0, 5.0], [1e-9, 2e-9], [-3.0, 1e6], [0.87, 0.91]])
def test_axes_hold_their_values_with_few_round_ticks(values):
    line = Curve(order="importance", removed=np.array([0.0, 1.0]), metric=np.array(values), metric_name="score")
    found = pruning([line])
    assert found.low <= min(values) <= max(values) <= found.high
    assert 2 <= len(found.ticks) <= 12
    assert len({shown for _, shown in found.ticks}) == len(found.ticks)
    assert [float(shown) for _, shown in found.ticks] == pytest.approx([value for value, _ in found.ticks])


# ---- clusters and patterns -----------------------------------------------------------------------------------------


def test_each_cluster_has_a_mark_a_letter_and_its_members():
    made = classifier()
    (drawing,) = sheet(made).constellations
    (source,) = made.clusters
    assert [group.letter for group in drawing.groups] == list("ABCDE")
    for n, group in enumerate(drawing.groups):
        own = [source.members[at] for at in np.flatnonzero(source.labels == n)]
        assert list(group.members) == [f"{made.heads[m].layer}.{made.heads[m].head}" for m in own]
        names = [made.patterns[m].name for m in own]
        count = max(names.count(name) for name in names)
        assert group.pattern.endswith(f"({count} of {len(own)})")
    reader = Reader(page([made]))
    assert len([e for e in reader.of("mark") if e["inside"][-1]["tag"] == "svg" and e["text"]]) == 72
    assert len(reader.of("medoid")) == 5


def test_distances_on_the_map_keep_their_proportions_and_fill_it():
    (drawing,) = sheet(classifier()).constellations
    places = classifier().clusters[0].places
    drawn = np.array([[mark.x, -mark.y] for mark in drawing.marks])
    ratio = np.linalg.norm(drawn - drawn[0], axis=1)[1:] / np.linalg.norm(places - places[0], axis=1)[1:]
    assert ratio == pytest.approx(ratio[0])
    assert drawn[:, 0].min() >= clusterings.MARGIN - 1e-6
    assert drawn[:, 0].max() <= drawing.width - clusterings.MARGIN + 1e-6


def test_clusters_do_not_look_alike_by_colour_alone():
    looks = {(n % clusterings.COLOURS, clusterings.drawn(n, 0, 0)) for n in range(42)}
    assert len(looks) == 42
    assert [clusterings.letter(n) for n in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "AB", "BA"]


def test_patterns_are_counted():
    made = translator()
    names = [each.name for each in made.patterns]
    for kind in sheet(made).kinds:
        assert kind.count == names.count(kind.name)
        by_stream = [f"{s} {names[48 * n : 48 * n + 48].count(kind.name)}" for n, s in enumerate(made.streams)]
        assert list(kind.counts) == by_stream
        assert kind.meaning
        assert re.search(rf"{kind.name} +{kind.count} ", shown([made]))


# ---- everywhere ----------------------------------------------------------------------------------------------------


def test_texts_from_outside_are_never_more_than_texts():
    for source in (page([hostile()]), fragment([hostile()])):
        reader = Reader(source)
        assert {each["tag"] for each in reader.found} <= TAGS
        assert not [
            name for _, name, _ in reader.attributes if name.startswith("on") or name in ("src", "srcdoc", "id")
        ]
        for _, name, value in reader.attributes:
            if name == "style":
                assert re.fullmatch(r"((top|left|right|width):\d+(\.\d+)?%)+", value)
        assert "<script" not in source.lower()
        assert "\x1b" not in source
        assert "\u202e" not in source
        text = reader.of("sheet")[0]["text"]
        assert "49" not in reader.of("kinds")[0]["text"]
        assert BREAKOUT in text
        assert EVIL[:20] in text
    text = shown([hostile()], 120, force_terminal=True, color_system="truecolor")
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert BREAKOUT[:9] in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_the_terminal_stays_in_its_width(found, width, colour):
    text = shown([found], width, force_terminal=bool(colour), color_system=colour)
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        assert cell_len(line) <= width
    assert "It ranks heads; it does not say what happens when they go." in " ".join(text.split())


def test_the_terminal_shows_the_first_ten_and_a_block_per_head():
    made = classifier()
    text = shown([made], 100)
    for top in sheet(made).top:
        assert re.search(rf"{top.name} +{top.importance.shown} ± {top.error} +{top.share} %", text)
    rows = re.findall(r"^ +[0-5]  ((?:[▁▂▃▄▅▆▇█] ){12})", text, flags=re.MULTILINE)
    heights = np.array([["▁▂▃▄▅▆▇█".index(each) for each in row.split()] for row in rows])
    assert heights.argmax() == made.importance.argmax()
    assert heights.shape == (6, 12)
    assert re.search(r"importance +0\.910 +0\.9", text)


def test_every_kind_of_file_is_written(found, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    for suffix in (".html", ".png", ".svg"):
        assert render.save([found], tmp_path / f"heads{suffix}").stat().st_size > 1000


def test_figures_have_an_axes_per_stream_and_the_same_bytes():
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    assert len(figure.figure(translator())[1]) == 3 + 1 + 1
    assert len(figure.figure(bare())[1]) == 1 + 1
    assert figure.image(classifier(), "svg") == figure.image(classifier(), "svg")
    assert b"<img" not in figure.image(hostile(), "svg")


@pytest.mark.parametrize("free", [0.03, 0.49, 0.5, 0.97])
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_what_can_go_is_written_within_the_axes(free, metric):
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    tested = Pruning(
        curves=curves(metric=metric), order=(0,), documents=9, free=free, test="by hand", beats_random=True
    )
    made, axes = figure.figure(report(heads("encoder", 2, 4), pruning=tested))
    made.draw_without_rendering()
    (words,) = (each for each in axes[-2].texts if "can go" in each.get_text())
    inside, outer = words.get_window_extent(), axes[-2].get_window_extent()
    assert outer.x0 <= inside.x0 < inside.x1 <= outer.x1


def test_reports_stand_among_other_drawings(tmp_path):
    path = render.save([review(), rollout(), classifier()], tmp_path / "all.html")
    reader = Reader(path.read_text(encoding="utf-8"))
    said = [" ".join(e["text"].split()) for e in reader.of("plain")]
    assert said[0].startswith("rollout · ")
    assert said[1] == "Importance of heads"
    assert "72 heads" in [number(e) for e in reader.of("number")]
    assert not re.search(r"\bid=", fragment([classifier()]))
    assert classifier()._repr_html_() == fragment([classifier()])
    assert classifier().save(tmp_path / "one.html").read_text(encoding="utf-8") == page([classifier()])


# ---- tables --------------------------------------------------------------------------------------------------------


COLUMNS = (
    "stream layer head module group importance error weighted relevance "
    "pattern confidence entropy distance sink cluster"
).split()


def test_a_parquet_file_has_a_row_per_head(found, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `corpus`")
    table = parquet.read_table(render.save([found], tmp_path / "heads.parquet"))
    assert table.column_names == COLUMNS
    assert table.num_rows == len(found.heads)
    read = table.to_pydict()
    for name in ("layer", "head", "group"):
        assert read[name] == [getattr(head, name) for head in found.heads]
    known = [None if np.isnan(each) else each for each in found.importance]
    assert read["importance"] == known
    assert (read["pattern"] == [None] * len(found.heads)) is (not found.patterns)
    assert str(table.schema.field("group").type) == "int64"
    assert table.schema.metadata[b"documents"] == str(found.documents).encode()


def test_clusters_are_numbers_in_the_table():
    made = translator()
    assert tables.columns(made)["cluster"] == [int(n) for each in made.clusters for n in each.labels]
    assert tables.columns(bare())["cluster"] == [None] * 8


def test_a_table_as_text_is_the_same_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `corpus`")
    made = grouped()
    whole = parquet.read_table(render.save([made], tmp_path / "heads.parquet")).to_pylist()
    with render.save([made], tmp_path / "heads.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in whole]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_is_for_what_is_one_only(suffix, tmp_path):
    with pytest.raises(UsageError, match=r"must end in one of \.json, \.html, \.png, \.svg, \.pdf; found"):
        render.save([review()], tmp_path / f"map{suffix}")
    render.check_writable(tmp_path / "heads.parquet", heads=True)
    with pytest.raises(UsageError, match="shows one map; found 2"):
        render.save([bare(), one()], tmp_path / "heads.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs pyarrow.*pip install 'clearhead\[corpus\]'"):
        render.save([bare()], tmp_path / "heads.parquet")


def test_reports_survive_json(tmp_path):
    for make in (classifier, translator, grouped, bare, losing):
        path = render.save([make()], tmp_path / "heads.json")
        again = HeadReport.from_dict(json.loads(path.read_text(encoding="ascii")))
        assert page([again]) == page([make()])


def test_strange_reports_are_drawn():
    assert "no number" not in page([odd()])
    assert "nan" not in Reader(page([odd()])).of("importances")[0]["text"]
    assert "0 heads" in page([empty()])
    assert "1 head" in page([one()])
    assert page([report(heads("a", 1, 2), importance=np.array([np.inf, 1.0]))])
