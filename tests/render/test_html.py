"""The report adds up as it is shown, asks nothing of the network, and takes every text for a text."""

from __future__ import annotations

import re
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from clearhead.render import fragment
from clearhead.render.html import page
from clearhead.render.texts import visible
from render.examples import ADVERSARIAL, ALL, BREAKOUT, adversarial, leaking, long, made, open_books, pair, review

VOID = {"meta", "link", "img", "br", "hr", "input"}
ALLOWED = set(
    "html head meta title style body main header footer nav article section h1 h2 h3 h4 h5 p ol ul li dl dt dd div "
    "span a bdi strong details summary".split()
)


class Reader(HTMLParser):
    """Every element with its attributes and text, by a parser that knows nothing of the templates."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.found, self.open, self.attributes = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "attributes": dict(attributes), "text": "", "inside": [*self.open]}
        self.found.append(element)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def of(self, *names, inside=None):
        """The elements that have all these classes, perhaps within one that has another."""
        return [
            each
            for each in self.found
            if set(names) <= classes(each) and (inside is None or any(inside in classes(e) for e in each["inside"]))
        ]


def classes(element):
    return set((element["attributes"].get("class") or "").split())


def number(element):
    return element["text"].strip().replace("−", "-")


@pytest.fixture(params=ALL)
def found(request):
    return ALL[request.param]()


def test_the_numbers_of_the_bars_add_up_to_the_units(found):
    numbers = [float(number(each)) for each in Reader(page([found])).of("number", inside="bars")]
    assert len(numbers) == len(found.units)
    assert sum(numbers) == pytest.approx(float(found.relevance.sum()), abs=5e-4 * len(numbers))


def test_the_numbers_of_the_books_add_up_exactly(found):
    reader = Reader(page([found]))
    lines = [e for e in reader.found if e["tag"] == "li" and any("steps" in classes(up) for up in e["inside"])]
    shown = {"total": [], "line": []}
    for line in lines:
        text = number(next(e for e in reader.of("number") if any(up is line for up in e["inside"])))
        if not classes(line) & {"for", "against"} and "e" not in text:
            shown["total" if "total" in classes(line) else "line"].append(Decimal(text))
    assert [sum(shown["line"])] == shown["total"]
    assert float(shown["total"][0]) == pytest.approx(found.value, abs=1e-3)
    assert number(reader.of("value")[0]) == str(shown["total"][0])


def test_exact_numbers_are_in_the_titles(found):
    titles = [e["attributes"]["title"] for e in Reader(page([found])).of("number", inside="bars")]
    exact = [float(title.replace("−", "-")) for title in titles]
    assert sorted(exact) == sorted(found.relevance.tolist())


def test_bars_are_as_long_as_their_numbers():
    reader = Reader(page([review()]))
    pattern = re.compile(r"left:([\d.]+)%;width:([\d.]+)%")
    widths = [float(pattern.fullmatch(e["attributes"]["style"])[2]) for e in reader.of("bar", inside="bars")]
    numbers = [abs(float(number(e))) for e in reader.of("number", inside="bars")]
    assert [w / widths[0] for w in widths] == pytest.approx([n / numbers[0] for n in numbers], abs=1e-3)


def test_tokens_carry_their_number_and_a_place_for_the_focus(found):
    reader = Reader(page([found]))
    tokens, tips = reader.of("token"), reader.of("tip", inside="token")
    assert len(tokens) == len(tips) == len(found.units)
    assert all(token["attributes"]["tabindex"] == "0" for token in tokens)
    assert [float(number(tip)) for tip in tips] == pytest.approx(found.relevance.tolist(), abs=5.1e-4)


def test_the_classes_of_tokens_are_the_signs(found):
    for token, relevance in zip(Reader(page([found])).of("token"), found.relevance, strict=True):
        step = next(each for each in classes(token) if re.fullmatch(r"[pm]\d+|zero", each))
        assert {"p": relevance > 0, "m": relevance < 0, "z": True}[step[0]]


# ---- nothing but text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: page([adversarial()]), lambda: fragment([adversarial()])])
def test_texts_from_outside_are_never_more_than_texts(make):
    source = make()
    reader = Reader(source)
    assert {each["tag"] for each in reader.found} <= ALLOWED
    assert not [
        name for _, name, _ in reader.attributes if name.startswith("on") or name in ("src", "srcset", "srcdoc")
    ]
    assert "<script" not in source.lower()
    assert "<img" not in source.lower()
    for text in ADVERSARIAL:
        assert any(visible(text).strip() in each["text"] for each in reader.of("token")) or not text.strip()
    warnings = [e["text"] for e in reader.found if e["tag"] == "li" and "warnings" in classes(e["inside"][-1])]
    assert warnings == [visible(text) for text in adversarial().warnings]


def test_every_place_for_a_text_shows_it_as_it_is():
    text = "".join(each["text"] for each in Reader(page([adversarial()])).found if each["tag"] == "body")
    assert text.count(BREAKOUT) >= 8
    assert "49" not in text.split("{{ 7*7 }}")[1][:20]


def test_styles_hold_numbers_only(found):
    allowed = re.compile(r"(--zero:[\d.]+%|left:[\d.]+%;width:[\d.]+%)")
    for tag, name, value in Reader(page([found])).attributes:
        if name == "style":
            assert allowed.fullmatch(value), tag


# ---- one file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maps", [[review()], [review(), pair(), leaking()]])
def test_nothing_is_loaded(maps):
    source = page(maps)
    assert not re.search(r"https?:|//|url\(|@import|@font-face", source.replace("<!doctype html>", ""))
    for _, name, value in Reader(source).attributes:
        assert name not in ("src", "srcset", "action", "data")
        assert name != "href" or value.startswith("#")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in source


def test_the_same_map_gives_the_same_page(found):
    assert page([found]) == page([found.from_dict(found.to_dict())])


def test_pages_are_small():
    assert len(page([review()])) < 60_000
    assert len(page([long(512)])) < 400_000


def test_several_maps_have_an_index_that_leads_to_them():
    reader = Reader(page([review(), pair(), leaking()]))
    links = [e["attributes"]["href"] for e in reader.found if e["tag"] == "a"]
    ids = [e["attributes"]["id"] for e in reader.found if e["tag"] == "article"]
    assert links == [f"#{each}" for each in ids]
    assert len(set(ids)) == 3
    assert [e["tag"] for e in reader.found if e["tag"] == "h1"] == ["h1"]
    assert [e["text"] for e in reader.of("fault")] == ["The books balance only with what leaked"]
    assert not [e for e in Reader(page([review()])).found if e["tag"] == "nav"]


def test_headings_go_down_in_single_steps():
    for maps in ([review()], [review(), pair()]):
        ranks = [int(e["tag"][1]) for e in Reader(page(maps)).found if re.fullmatch(r"h[1-6]", e["tag"])]
        assert ranks[0] == 1
        assert all(b <= a + 1 for a, b in pairwise(ranks))


# ---- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [(review, "The books balance."), (leaking, "only with what leaked."), (open_books, "The books do not balance.")],
)
def test_the_verdict_is_in_words(make, words):
    assert words in Reader(page([make()])).of("verdict")[0]["text"]


def test_the_recipe_is_there():
    text = Reader(page([review()])).of("made")[0]["text"]
    for word in ("epsilon", "0.01", "strict", "false", "transformers", "5.24.0", "19fa366d42ec0083", "seed", "float32"):
        assert word in text


def test_leaks_are_there_by_cause_and_module():
    reader = Reader(page([leaking()]))
    kept, returned = reader.of("leaks")
    assert "open" in kept["attributes"]
    assert "open" not in returned["attributes"]
    assert "encoder.layer.0.dense linear" in kept["text"]
    assert "encoder.layer.5.attention.output.LayerNorm" in returned["text"]


def test_of_many_units_the_others_are_summed():
    summary = next(e["text"] for e in Reader(page([long()])).found if e["tag"] == "summary")
    assert re.fullmatch(r"96 others, together \+\d\.\d{3}", summary)


# ---- fragments -----------------------------------------------------------------------------------------------------


def test_a_fragment_is_no_page_and_its_style_stays_inside():
    source = fragment([review(), leaking()])
    assert not re.search(r"<(html|head|body|title|meta|main)\b|\bid=", source)
    style = re.sub(r"/\*.*?\*/", "", re.search(r"<style>(.*?)</style>", source, flags=re.DOTALL)[1], flags=re.DOTALL)
    selectors = re.findall(r"(?:^|[{};])\s*([^{};@]+?)\s*\{", style)
    assert len(selectors) > 100
    for selector in selectors:
        assert all(".clearhead" in part for part in selector.split(","))


def test_a_map_shows_itself_in_a_notebook():
    assert review()._repr_html_() == fragment([review()])


@pytest.mark.parametrize(
    "odd", [made([], []), made(["a"], [0.0]), made(["a"], [float("nan")]), made(["a"], [1.0], value=0)]
)
def test_odd_maps_have_a_page(odd):
    assert Reader(page([odd])).of("verdict")
