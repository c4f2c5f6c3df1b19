"""Tiny random models of many families, each with a processor made on the spot and a question to ask it.

Nothing is downloaded: weights come from a seed, tokenisers from a few sentences. Weights are larger than libraries
draw them, and biases and norms are not the identity, so that values are far from 0 and every rule has work to do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "a gripping , beautiful film .",
    "this was not a good film , and it is a bad one !",
    "Two young people are walking in the park.",
    "A man in a blue shirt is standing on a ladder.",
    "people are walking on the street and talking about the weather",
    "Anna Smith lives in Berlin and works for a small company in Paris.",
    "The capital of France is Paris, and the capital of Germany is Berlin.",
    "Zwei junge Leute gehen im Park spazieren.",
    "Ein Mann in einem blauen Hemd steht auf einer Leiter.",
    "ein Ziel und ein Haus",
    "What is the capital of France? Where does Anna work? Who is walking?",
    "a photo of a red square on a green field",
]
WORDS = sorted({word.lower() for line in CORPUS for word in line.replace("?", " ?").replace(".", " .").split()})
PIECES = ["##s", "##ing", "walk", "talk", "un", "##walk", "##able", *(f"##{letter}" for letter in "aeiou")]
LIMIT = 64  # the longest text that any of these reads
SIDE = 32  # pixels of a picture

# ---- tokenisers -----------------------------------------------------------------------------------------------------


def wordpiece(
    special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    order: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """Whole lower-case words, pieces with ##; one prefix and suffix, pairs parted by the suffix."""
    prefix, suffix = special[2:4]
    vocab = {word: n for n, word in enumerate(dict.fromkeys([*(order or special), *WORDS, *PIECES, *",.?!"]))}
    inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.BertProcessing((suffix, vocab[suffix]), (prefix, vocab[prefix]))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if options.pop("types", True) else [])]
    return _wrapped(inner, model_input_names=inputs, **names, **options)


def byte_level(**options: Any) -> Any:
    """As decoders do it: nothing around a text, the space is part of the word behind it, also in the offsets."""
    inner = _trained_bytes(["<|endoftext|>"], lower=False)
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    return _wrapped(inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>", **options)


def byte_level_with_edges(**options: Any) -> Any:
    """As encoders do it: `<s> text </s>`, pairs parted by `</s></s>`, offsets without the space."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner = _trained_bytes(special, lower=False)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True))
    return _wrapped(inner, cls_token="<s>", sep_token="</s>", **names, **options)


def byte_level_lower(**options: Any) -> Any:
    """As image-text models do it: lower case, `<|startoftext|> text <|endoftext|>`."""
    inner = _trained_bytes(["<|startoftext|>", "<|endoftext|>"], lower=True)
    inner.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", 1), ("<|startoftext|>", 0), trim_offsets=False
    )
    end = "<|endoftext|>"
    return _wrapped(inner, bos_token="<|startoftext|>", eos_token=end, pad_token=end, unk_token=end, **options)


def unigram(*, begin: bool = False, end: bool = True, **options: Any) -> Any:
    """Pieces with the visible space; `<s>` in front and `</s>` behind as asked for."""
    special = ["<pad>", "</s>", "<unk>", "<s>", "<mask>"]
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=220, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=12
    )
    inner.train_from_iterator(CORPUS * 3, trainer)
    around = [*(["<s>"] if begin else []), "$A", *(["</s>"] if end else [])]
    pair = [*around, "$B", *(["</s>"] if end else [])]
    inner.post_processor = processors.TemplateProcessing(
        single=around, pair=pair, special_tokens=[(each, special.index(each)) for each in ("<s>", "</s>")]
    )
    names = dict(zip(("pad_token", "eos_token", "unk_token", "bos_token", "mask_token"), special, strict=True))
    return _wrapped(inner, **names, **options)


def _trained_bytes(special: list[str], *, lower: bool) -> Any:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.normalizer = normalizers.Lowercase() if lower else None
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(CORPUS * 3, trainer)
    return inner


def _wrapped(inner: Any, **options: Any) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=inner, **{"model_max_length": LIMIT, **options})


# ---- pictures -------------------------------------------------------------------------------------------------------


def image_processor(kind: str = "ViTImageProcessorPil") -> Any:
    """The Pillow-based one of a family, at the size of these models."""
    options: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}}
    if kind.startswith("CLIP"):
        options = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    if kind.startswith("ConvNext"):
        options = {"size": {"shortest_edge": SIDE}, "crop_pct": 0.875}
    return getattr(transformers, kind)(**options)


def picture(seed: int = 0, *, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A coloured square on a slope of grey, with a little noise: another one for each seed."""
    draw = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 100, height))
    pixels = np.stack([across, down, (across + down) / 2], axis=-1) + draw.normal(0, 8, (height, width, 3))
    left, top = draw.integers(0, width // 2), draw.integers(0, height // 2)
    pixels[top : top + height // 3, left : left + width // 3] = draw.integers(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


# ---- models ---------------------------------------------------------------------------------------------------------


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Biases and learned vectors that are not 0 and norms that are not 1, as trained models have them."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 1 and (p.dim() == 1 or not p.any()):
                p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return model.eval()


def made(family: str, kind: str, *, seed: int = 0, **config: Any) -> nn.Module:
    """A random model, for instance of `Bert` and `ForMaskedLM`; the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = getattr(transformers, family + kind)(getattr(transformers, f"{family}Config")(**config))
    return lively(found)


ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": LIMIT,
    "initializer_range": 0.2,
}
DISTILLED = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": LIMIT,
    "initializer_range": 0.2,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 8,
    "initializer_range": 0.2,
}
ENTITIES = {0: "O", 1: "PERSON", 2: "PLACE"}
MOODS = {0: "negative", 1: "neutral", 2: "positive"}
COLOURS = {0: "red", 1: "green", 2: "blue", 3: "grey"}


def _named(labels: dict[int, str]) -> dict[str, Any]:
    return {"id2label": labels, "label2id": {label: n for n, label in labels.items()}, "num_labels": len(labels)}


# How each family spells the edges of a text.
EDGES = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
PIECED = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3}


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A model, its processor, and inputs of different lengths to ask about; the first is the default question."""

    name: str
    task: str
    model: nn.Module
    processor: Any
    inputs: tuple[Any, ...]

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)


Maker = Callable[[], tuple[nn.Module, Any]]
MAKERS: dict[str, tuple[str, Maker]] = {}


def entry(task: str) -> Callable[[Maker], Maker]:
    def keep(maker: Maker) -> Maker:
        MAKERS[f"{task}/{maker.__name__.strip('_').replace('_', '-')}"] = (task, maker)
        return maker

    return keep


@cache
def gallery(name: str) -> Entry:
    """The entry of that name, made once. Its model is shared: leave it as it is."""
    task, maker = MAKERS[name]
    model, processor = maker()
    inputs = INPUTS[task]
    if task == "masked-lm":
        inputs = tuple(text.format(mask=processor.mask_token) for text in inputs)
    return Entry(name=name, task=task, model=model, processor=processor, inputs=inputs)


@cache
def exact(name: str) -> Entry:
    """The same in float64, where two ways to one number agree although what they add up cancels."""
    one = gallery(name)
    return replace(one, model=copy.deepcopy(one.model).double())


def names(*tasks: str) -> list[str]:
    """The entries of some tasks, or all."""
    return [name for name, (task, _) in MAKERS.items() if not tasks or task in tasks]


INPUTS: dict[str, tuple[Any, ...]] = {
    "text-classification": (
        "a gripping , beautiful film !",
        "this was not a good one",
        "a film",
        ("a good film .", "this is a bad film"),
    ),
    "token-classification": (
        "Anna Smith lives in Berlin",
        "people are walking",
        "The capital of Germany is Berlin, and a man in Paris works for Anna.",
    ),
    "question-answering": (
        ("What is the capital of France?", "The capital of France is Paris, and the capital of Germany is Berlin."),
        ("Who is walking?", "Two young people are walking in the park."),
        ("Where does Anna work?", "Anna Smith lives in Berlin and works for a small company in Paris."),
    ),
    "masked-lm": (
        "people are {mask} on the street",
        "a {mask} film",
        "Two young people are walking in the {mask} and talking about the weather",
    ),
    "causal-lm": ("Two young people are", "A man", "Anna Smith lives in Berlin and works for a small"),
    "encoder-decoder": (
        "Two young people are walking",
        "A man",
        "A man in a blue shirt is standing on a ladder.",
    ),
    "image-classification": (picture(0), picture(1), picture(2, width=48, height=40)),
    "image-text-similarity": (
        (picture(0), "a photo of a red square"),
        (picture(1), "a film"),
        (picture(2, width=48, height=40), "a blue shirt on a green field in the park"),
    ),
    "sentence-similarity": (
        ("Two young people are walking in the park.", "people are walking on the street"),
        ("a good film", "a bad film"),
        ("A man in a blue shirt is standing on a ladder.", "a man"),
    ),
}


# ---- texts in, classes out ------------------------------------------------------------------------------------------


@entry("text-classification")
def bert() -> tuple[nn.Module, Any]:
    tokenizer = wordpiece()
    labels = _named({0: "negative", 1: "positive"})
    return made("Bert", "ForSequenceClassification", vocab_size=len(tokenizer), **ENCODER, **labels), tokenizer


@entry("text-classification")
def roberta() -> tuple[nn.Module, Any]:
    tokenizer = byte_level_with_edges()
    config = {**ENCODER, **EDGES, "max_position_embeddings": LIMIT + 2, "type_vocab_size": 1}
    labels = _named(MOODS)
    return made("Roberta", "ForSequenceClassification", vocab_size=len(tokenizer), **config, **labels), tokenizer


@entry("text-classification")
def llama() -> tuple[nn.Module, Any]:
    """A decoder: its answer stands at the last token, which padding must not move."""
    tokenizer = unigram(begin=True, end=False)
    config = {**ENCODER, **PIECED, "num_key_value_heads": 2}
    return made("Llama", "ForSequenceClassification", vocab_size=len(tokenizer), **config, **_named(MOODS)), tokenizer


@entry("text-classification")
def deberta() -> tuple[nn.Module, Any]:
    """Relative positions in the attention itself."""
    tokenizer = wordpiece()
    config = {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    return made(
        "DebertaV2", "ForSequenceClassification", vocab_size=len(tokenizer), **config, **_named(MOODS)
    ), tokenizer


def cautious(model: nn.Module, bias: float) -> nn.Module:
    """A tagger that says more often that a token is nothing."""
    with torch.no_grad():
        model.classifier.bias[0] += bias
    return model


@entry("token-classification")
def bert_tagger() -> tuple[nn.Module, Any]:
    tokenizer = wordpiece()
    model = made("Bert", "ForTokenClassification", vocab_size=len(tokenizer), **ENCODER, **_named(ENTITIES))
    return cautious(model, 1.0), tokenizer


@entry("token-classification")
def modernbert_tagger() -> tuple[nn.Module, Any]:
    """Rotary positions, gated layers, local attention."""
    tokenizer = byte_level_with_edges()
    config = {
        **ENCODER,
        **EDGES,
        "cls_token_id": 0,
        "sep_token_id": 2,
        "local_attention": 8,
        "initializer_cutoff_factor": 3.0,
    }
    labels = _named(ENTITIES)
    return cautious(
        made("ModernBert", "ForTokenClassification", vocab_size=len(tokenizer), **config, **labels), 1.0
    ), tokenizer


@entry("question-answering")
def bert_reader() -> tuple[nn.Module, Any]:
    tokenizer = wordpiece()
    return made("Bert", "ForQuestionAnswering", vocab_size=len(tokenizer), **ENCODER), tokenizer


@entry("question-answering")
def distilbert_reader() -> tuple[nn.Module, Any]:
    tokenizer = wordpiece(types=False)
    return made("DistilBert", "ForQuestionAnswering", vocab_size=len(tokenizer), **DISTILLED), tokenizer


@entry("question-answering")
def roberta_reader() -> tuple[nn.Module, Any]:
    tokenizer = byte_level_with_edges()
    config = {**ENCODER, **EDGES, "max_position_embeddings": LIMIT + 2, "type_vocab_size": 1}
    return made("Roberta", "ForQuestionAnswering", vocab_size=len(tokenizer), **config), tokenizer


# ---- language models ------------------------------------------------------------------------------------------------


@entry("masked-lm")
def bert_filler() -> tuple[nn.Module, Any]:
    tokenizer = wordpiece()
    return made("Bert", "ForMaskedLM", vocab_size=len(tokenizer), **ENCODER), tokenizer


@entry("masked-lm")
def roberta_filler() -> tuple[nn.Module, Any]:
    tokenizer = byte_level_with_edges()
    config = {**ENCODER, **EDGES, "max_position_embeddings": LIMIT + 2, "type_vocab_size": 1}
    return made("Roberta", "ForMaskedLM", vocab_size=len(tokenizer), **config), tokenizer


@entry("masked-lm")
def electra_filler() -> tuple[nn.Module, Any]:
    """Embeddings narrower than the layers, projected."""
    tokenizer = wordpiece()
    return made("Electra", "ForMaskedLM", vocab_size=len(tokenizer), embedding_size=16, **ENCODER), tokenizer


@entry("causal-lm")
def gpt2() -> tuple[nn.Module, Any]:
    """Learned positions, tied embeddings, nothing in front of a text."""
    tokenizer = byte_level()
    config = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LIMIT, "initializer_range": 0.2}
    config = {**config, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return made("GPT2", "LMHeadModel", seed=8, vocab_size=len(tokenizer), **config), tokenizer


@entry("causal-lm")
def llama_writer() -> tuple[nn.Module, Any]:
    """Rotary positions, grouped queries, gated layers, `<s>` in front of a text."""
    tokenizer = unigram(begin=True, end=False)
    config = {**ENCODER, **PIECED, "num_key_value_heads": 2}
    return made("Llama", "ForCausalLM", seed=3, vocab_size=len(tokenizer), **config), tokenizer


@entry("causal-lm")
def qwen_writer() -> tuple[nn.Module, Any]:
    """Norms on queries and keys."""
    tokenizer = byte_level()
    config = {
        **ENCODER,
        "head_dim": 8,
        "num_key_value_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    return made("Qwen3", "ForCausalLM", seed=10, vocab_size=len(tokenizer), **config), tokenizer


@entry("encoder-decoder")
def bart() -> tuple[nn.Module, Any]:
    """Learned positions, tied embeddings; decoding starts with `</s>`."""
    tokenizer = byte_level_with_edges()
    config = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": LIMIT,
        "init_std": 0.2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    }
    return made("Bart", "ForConditionalGeneration", seed=22, vocab_size=len(tokenizer), **config, **EDGES), tokenizer


@entry("encoder-decoder")
def t5() -> tuple[nn.Module, Any]:
    """Relative positions, norms without centre; decoding starts with `<pad>`."""
    tokenizer = unigram()
    config = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "initializer_factor": 1.0,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }
    model = made("T5", "ForConditionalGeneration", seed=6, vocab_size=len(tokenizer), **config, **PIECED)
    with torch.no_grad():  # or else a step says little but which token came before it
        model.shared.weight.mul_(0.3)
        model.lm_head.weight.mul_(0.3)
    return model, tokenizer


@entry("encoder-decoder")
def marian() -> tuple[nn.Module, Any]:
    """Sinusoids, scaled embeddings, a bias on the logits; decoding starts with `<pad>`."""
    tokenizer = unigram()
    config = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": LIMIT,
        "init_std": 0.2,
        "scale_embedding": True,
        "decoder_start_token_id": 0,
        "forced_eos_token_id": None,
    }
    model = made("Marian", "MTModel", seed=19, vocab_size=len(tokenizer), **config, **PIECED)
    with torch.no_grad():
        model.final_logits_bias.add_(torch.linspace(-0.5, 0.5, model.final_logits_bias.numel()))
    return model, tokenizer


# ---- pictures in ----------------------------------------------------------------------------------------------------


@entry("image-classification")
def vit() -> tuple[nn.Module, Any]:
    return made("ViT", "ForImageClassification", **VISION, **_named(COLOURS)), image_processor()


@entry("image-classification")
def dinov2_registers() -> tuple[nn.Module, Any]:
    """A learned first vector and two registers; the answer reads the patches too."""
    config = {**VISION, "num_register_tokens": 2, "mlp_ratio": 2}
    config.pop("intermediate_size")
    model = made("Dinov2WithRegisters", "ForImageClassification", **config, **_named(COLOURS))
    return model, image_processor()


@entry("image-classification")
def beit() -> tuple[nn.Module, Any]:
    """Relative positions, a mean over the patches."""
    config = {**VISION, "use_relative_position_bias": True, "use_mean_pooling": True, "layer_scale_init_value": 0.5}
    return made("Beit", "ForImageClassification", **config, **_named(COLOURS)), image_processor("BeitImageProcessorPil")


@entry("image-classification")
def swin() -> tuple[nn.Module, Any]:
    """Windows that shift, patches that merge, no first vector."""
    config = {
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 2,
        "image_size": SIDE,
        "patch_size": 4,
        "initializer_range": 0.2,
    }
    return made("Swin", "ForImageClassification", **config, **_named(COLOURS)), image_processor()


@entry("image-classification")
def convnext() -> tuple[nn.Module, Any]:
    """Convolutions only."""
    config = {
        "hidden_sizes": [8, 16, 16, 32],
        "depths": [1, 1, 1, 1],
        "image_size": SIDE,
        "initializer_range": 0.2,
        "layer_scale_init_value": 0.5,
    }
    return made("ConvNext", "ForImageClassification", **config, **_named(COLOURS)), image_processor(
        "ConvNextImageProcessorPil"
    )


@entry("image-text-similarity")
def clip() -> tuple[nn.Module, Any]:
    """A first vector on the picture's side, a causal text side that is read at its end."""
    tokenizer = byte_level_lower()
    small = {key: value for key, value in ENCODER.items() if key != "initializer_range"}
    text = {**small, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {key: value for key, value in VISION.items() if key != "initializer_range"}
    model = made("CLIP", "Model", text_config=text, vision_config=vision, projection_dim=16)
    return model, transformers.CLIPProcessor(image_processor("CLIPImageProcessorPil"), tokenizer)


@entry("image-text-similarity")
def siglip() -> tuple[nn.Module, Any]:
    """No first vector, a pooling head with attention, a text side read at its last place."""
    tokenizer = unigram(model_input_names=["input_ids"])
    small = {key: value for key, value in ENCODER.items() if key != "initializer_range"}
    text = {
        **small,
        "vocab_size": len(tokenizer),
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 3,
        "projection_size": 32,
    }
    vision = {key: value for key, value in VISION.items() if key != "initializer_range"}
    model = made("Siglip", "Model", text_config=text, vision_config=vision)
    return model, transformers.SiglipProcessor(image_processor("SiglipImageProcessorPil"), tokenizer)


# ---- vectors out ----------------------------------------------------------------------------------------------------


@entry("sentence-similarity")
def bert_embedder() -> tuple[nn.Module, Any]:
    tokenizer = wordpiece()
    return made("Bert", "Model", vocab_size=len(tokenizer), **ENCODER), tokenizer


@entry("sentence-similarity")
def mpnet_embedder() -> tuple[nn.Module, Any]:
    """Relative positions that all layers share, `<s>` and `</s>` around words."""
    special, order = ("<pad>", "[UNK]", "<s>", "</s>", "<mask>"), ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
    tokenizer = wordpiece(special, order, types=False)
    config = {**ENCODER, "max_position_embeddings": LIMIT + 2, **EDGES}
    return made("MPNet", "Model", vocab_size=len(tokenizer), **config), tokenizer
