"""Units: every token covers exactly its piece of the text, in any script and for every kind of tokeniser."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clearhead.subjects.texts import read

TEXTS = [
    "A man is eating a piece of bread in the kitchen.",
    "don't   stop\tme now\nplease",
    "北京是中国的首都",
    "I ♥ 🤗 and 👩‍👩‍👧",
    "cafe\u0301 naïve Ångström",
    "unbelievably antidisestablishmentarian [MASK] ##x",
]


def _byte_level() -> Any:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    inner = ByteLevelBPETokenizer(add_prefix_space=False)
    inner.train_from_iterator(TEXTS, vocab_size=320, show_progress=False, special_tokens=["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, bos_token="<s>", eos_token="</s>")


def _unigram() -> Any:
    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import PreTrainedTokenizerFast

    inner = SentencePieceUnigramTokenizer()
    inner.train_from_iterator(TEXTS, vocab_size=120, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, unk_token="<unk>")


@pytest.fixture(scope="module", params=["wordpiece", "byte-level", "unigram"])
def tokenizer(request: pytest.FixtureRequest, minilm: str) -> Any:
    from transformers import AutoTokenizer

    if request.param == "wordpiece":
        return AutoTokenizer.from_pretrained(minilm)
    return _byte_level() if request.param == "byte-level" else _unigram()


@pytest.mark.parametrize("text", TEXTS)
def test_units_cover_the_text(tokenizer: Any, text: str) -> None:
    part = read(tokenizer, {"input": text}, limit=None, truncate=False, device=torch.device("cpu"))
    assert not part.notes
    assert part.part.tensors["input_ids"].shape == (1, len(part.units))
    covered: set[int] = set()
    for position, unit in enumerate(part.units):
        assert unit.index == position
        if unit.special:
            assert unit.word is None
            continue
        covered.update(range(unit.start, unit.end))
        if text[unit.start : unit.end].strip():
            assert unit.text == text[unit.start : unit.end]
    missed = {i for i, character in enumerate(text) if not character.isspace()} - covered
    assert not missed, [text[i] for i in missed]


def test_words_join_their_tokens(minilm: str) -> None:
    from clearhead import AttentionVisualizer

    text = "unbelievably good filmmaking"
    found = AttentionVisualizer.from_pretrained(minilm).explain((text, "good"))
    words = found.words()
    assert [unit.text for unit in words.units if unit.stream == "text" and not unit.special] == text.split()
    assert words.relevance.sum() == pytest.approx(found.relevance.sum(), rel=1e-12)
    assert len(words.units) < len(found.units)
