"""Data sets however they come: the same inputs from a list, a generator, a column, a file or a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image
from typer.testing import CliRunner

from clearhead import AttentionVisualizer, cli
from clearhead.errors import UsageError
from clearhead.subjects.documents import read
from tasks.gallery import gallery, picture

TEXTS = ["a film", "a good film .", "this was not a good one"]


@pytest.mark.parametrize(
    "data",
    [
        list(TEXTS),
        tuple(TEXTS),
        (text for text in TEXTS),
        np.array(TEXTS),
        pandas.Series(TEXTS, index=[7, 8, 9]),
        dict.fromkeys(TEXTS).keys(),
    ],
    ids=["list", "tuple", "generator", "array", "column", "keys"],
)
def test_anything_that_gives_inputs_one_by_one_is_data(data):
    inputs, labels = read(data, (n for n in (1, 0, 1)))
    assert (inputs, labels) == (TEXTS, [1, 0, 1])


def test_a_report_from_a_generator_is_that_from_a_list():
    entry = gallery("text-classification/bert")
    av = AttentionVisualizer(entry.model, entry.processor)
    one, other = av.heads(TEXTS, [1, 0, 1], of="loss"), av.heads(iter(TEXTS), iter([1, 0, 1]), of="loss")
    assert one.to_dict() == other.to_dict()


def test_files_of_texts(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa film\r\n\n  \nein \xe2\x80\xa8 Ziel\n")
    assert read(tmp_path / "a.txt", None) == (["a film", "ein \u2028 Ziel"], None)
    assert read(str(tmp_path / "a.txt"), ["x", "y"]) == (["a film", "ein \u2028 Ziel"], ["x", "y"])
    (tmp_path / "a.tsv").write_text("a film\tfine\n\na man\tbad\n")
    assert read(tmp_path / "a.tsv", None) == (["a film", "a man"], ["fine", "bad"])
    assert read(tmp_path / "a.tsv", [3, 4]) == (["a film", "a man"], [3, 4])


# ---- images --------------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of three images and what else lies about, and files that name them from outside."""
    folder = tmp_path / "images"
    (folder / "deeper.png").mkdir(parents=True)
    for n, ending in enumerate(("b.png", "c.JPG", "a.bmp")):
        picture(n).save(folder / ending)
    (folder / "notes.txt").write_text("a film")
    (tmp_path / "list.txt").write_text(f"images/b.png\n\n  images/c.JPG \n{folder / 'a.bmp'}\n")
    (tmp_path / "list.tsv").write_text("images/b.png\tred\nimages/c.JPG\tblue\nimages/a.bmp\t0\n")
    return tmp_path


def test_folders_and_files_of_images(images):
    folder = images / "images"
    assert read(folder, None, images=True) == ([folder / name for name in ("a.bmp", "b.png", "c.JPG")], None)
    named = [folder / name for name in ("b.png", "c.JPG", "a.bmp")]
    assert read(images / "list.txt", None, images=True) == (named, None)
    assert read(images / "list.tsv", None, images=True) == (named, ["red", "blue", "0"])


def test_paths_and_pictures_in_memory_give_the_same_report(images):
    entry = gallery("image-classification/vit")
    av = AttentionVisualizer(entry.model, entry.processor)
    named = [images / "images" / name for name in ("b.png", "c.JPG", "a.bmp")]

    def opened() -> Iterator[Image.Image]:
        for path in named:
            with Image.open(path) as found:
                yield found.convert("RGB")

    reports = [
        av.heads(data, labels, of="loss")
        for data, labels in ((images / "list.tsv", None), (opened(), ["red", "blue", 0]), (map(str, named), [0, 2, 0]))
    ]
    assert reports[0].documents == 3
    assert (reports[0].importance > 0).all()
    for other in reports[1:]:
        np.testing.assert_array_equal(other.importance, reports[0].importance)
        np.testing.assert_array_equal(other.relevance, reports[0].relevance)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A folder of handwritten digits, sorted by name, and a file that names and labels them."""
    from sklearn.datasets import load_digits

    folder, found = tmp_path_factory.mktemp("digits"), load_digits()
    for n in range(12):
        Image.fromarray((found.images[n] * 255 / 16).astype("uint8")).resize((32, 32)).save(folder / f"{n:02}.png")
    lines = (f"{n:02}.png\tclass {found.target[n]}\n" for n in range(12))
    (folder / "digits.tsv").write_text("".join(lines))
    return folder


def test_digits_on_the_command_line(digits):
    command = ["heads", "--model", "clearhead/digits", "--json", "--data"]
    folder = json.loads(CliRunner().invoke(cli.app, [*command, str(digits)]).stdout)
    named = CliRunner().invoke(cli.app, [*command, str(digits / "digits.tsv"), "--of", "loss", "--prune"])
    by_loss = json.loads(named.stdout)
    assert folder["documents"] == by_loss["documents"] == 12
    assert folder["task"] == "image-classification"
    assert min(folder["importance"]) > 0
    assert by_loss["pruning"]["curves"][0]["metric_name"] == "accuracy"
    assert by_loss["pruning"]["curves"][0]["metric"][0] > 0.5


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (7, None, "Data must be a list.*found int"),
        ({"text": TEXTS}, None, "Data must be a list.*found dict"),
        (b"a film", None, "Data must be a list.*found bytes"),
        (TEXTS, "101", "Labels must be a list.*found str"),
        (TEXTS, 1, "Labels must be a list.*found int"),
        (TEXTS, [1, 0], "Each document has one label; found 2 for 3"),
        (TEXTS[:1], None, "2 documents at least; found 1"),
        (iter(()), None, "2 documents at least; found 0"),
        ("a film", None, "A path as data must lead to a file of text.*'a film'.*in a list"),
        ("a film " * 100, None, "A path as data must lead to a file of text"),
        ("a\0film", None, "A path as data must lead to a file of text"),
    ],
)
def test_what_is_no_data(data, labels, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(data, labels)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"images/b.png\tfine\n\nimages/c.JPG\n", "a.tsv", "line 3 has 1 parts"),
        (b"\xff\xfe\x00", "a.txt", "can be read.*codec"),
        (b"images/b.png\n\nimages/B.gif\n", "a.txt", "line 3 of 'a.txt' is 'images/B.gif', which leads to none"),
        (b"images\nimages\n", "a.txt", "line 1 of 'a.txt' is 'images'"),
        (b"word " * 100, "a.txt", "line 1 of 'a.txt'"),
        (b"a\0b\n", "a.txt", "line 1 of 'a.txt'"),
    ],
)
def test_what_is_wrong_with_a_file(images, content, name, message):
    (images / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read(images / name, None, images=True)


def test_what_is_wrong_with_a_folder(images, tmp_path):
    with pytest.raises(
        UsageError, match=r"^A folder holds images, which this model does not read.*a file with a text in each line"
    ):
        read(images / "images", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"^Images must lie in the folder itself; found none"):
        read(tmp_path / "empty", None, images=True)


def test_an_image_that_is_none_is_named(images):
    entry = gallery("image-classification/vit")
    (images / "images" / "b.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"Input 2 of 3: The file 'b\.png' cannot be read as an image"):
        AttentionVisualizer(entry.model, entry.processor).heads(images / "images")
