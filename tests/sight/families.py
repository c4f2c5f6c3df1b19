"""Tiny random models of many families, and the weights that each of them states itself: an oracle that knows no engine.

A family is an entry of a table: its name, the class that makes it, its config. Texts are ids given as tensors; models
of two sequences or of images come with the processors of the gallery.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.config import Settings
from clearhead.question import Layout, Question, Span
from clearhead.subjects import TENSORS, Loaded, Subject, Wanted, task_of
from clearhead.units import Unit
from tasks.gallery import ENCODER, VISION, gallery, image_processor, made, picture, unigram

VOCABULARY = 99
LENGTH = 13  # longer than every window below


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """A model and its question about one input; `beside` counts attentions that the model does not state."""

    name: str
    model: nn.Module
    question: Question
    beside: int = 0

    @property
    def tensors(self) -> Mapping[str, Any]:
        return self.question.passes[0].tensors


def question(model: nn.Module, given: Any, processor: Any = None, **wanted: Any) -> Question:
    """The question that an input poses; of tensors, about nothing in particular."""
    task = TENSORS if processor is None else task_of(model)
    loaded = Loaded(model=model, processor=processor, name="tiny", task=task, pooling="mean")
    if isinstance(given, Mapping):
        wanted["target"] = _nothing
    return Subject(loaded).question(given, Wanted(**wanted), Settings())


def _nothing(output: Any) -> Any:
    raise AssertionError("no target is needed to see attention")


def ids(length: int = LENGTH, seed: int = 0) -> dict[str, Tensor]:
    """One text of random tokens, none of which is special."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, VOCABULARY, (1, length), generator=draw)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


# ---- texts ----------------------------------------------------------------------------------------------------------

SMALL = {**ENCODER, "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**SMALL, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 8}
SHORT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
NAMED = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2}

TEXTS: dict[str, dict[str, Any]] = {
    "Bert": SMALL,
    "DistilBert": {**NAMED, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "initializer_range": 0.2},
    "Roberta": SMALL,
    "Albert": {**SMALL, "embedding_size": 16, "num_hidden_layers": 3},  # one layer, three times
    "Electra": {**SMALL, "embedding_size": 16},
    "MPNet": SMALL,
    "Deberta": {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "DebertaV2": {**SMALL, **RELATIVE},
    "XLNet": {**NAMED, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "initializer_range": 0.2},
    "ModernBert": {**SMALL, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2},
    "RoFormer": {**SMALL, "embedding_size": 16},
    "Funnel": {**NAMED, "block_sizes": [1, 1, 2], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48},
    "GPT2": {**NAMED, **SHORT, "initializer_range": 0.2},
    "GPTBigCode": {**NAMED, **SHORT, "multi_query": True},
    "GPTNeo": {
        **NAMED,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 48,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
    },
    "GPTJ": {**NAMED, **SHORT, "rotary_dim": 4},
    "CodeGen": {**NAMED, **SHORT, "rotary_dim": 4},
    "GPTNeoX": SMALL,
    "Bloom": {**NAMED, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "Falcon": {**SMALL, "new_decoder_architecture": False, "multi_query": True, "alibi": False},
    "Mpt": {**NAMED, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "OPT": {
        **NAMED,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
        "init_std": 0.2,
    },
    "Llama": GROUPED,
    "Mistral": {**GROUPED, "sliding_window": 4},
    "Qwen2": GROUPED,
    "Qwen3": WIDE,
    "Gemma2": {**WIDE, "attn_logit_softcapping": 1.0, "sliding_window": 4, "query_pre_attn_scalar": 4},
    "Gemma3Text": {**WIDE, "sliding_window": 4},
    "Phi": GROUPED,
    "Phi3": GROUPED,
    "Olmo2": GROUPED,
    "Cohere": GROUPED,
    "StableLm": GROUPED,
    "Mixtral": {**GROUPED, **EXPERTS},
    "Qwen2Moe": {**GROUPED, **EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "GptOss": {**WIDE, **EXPERTS, "sliding_window": 4, "layer_types": ["full_attention", "sliding_attention"]},
    "DeepseekV3": {
        **SMALL,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "num_key_value_heads": 4,
    },
}


def text(name: str) -> Family:
    model = made(name, "Model", **TEXTS[name])
    return Family(name=name, model=model, question=question(model, ids()))


# ---- two sequences --------------------------------------------------------------------------------------------------

DEEPER = {"encoder_layers": 2, "decoder_layers": 3}
PAIRED = {
    **DEEPER,
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "init_std": 0.2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 3,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
BUCKETED = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "bos_token_id": 3,
}
TEXT = "Two young people are walking"  # on both sides: sequences of the same length
TWO_SEQUENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "Bart": ("ForConditionalGeneration", PAIRED),
    "Marian": ("MTModel", PAIRED),
    "Pegasus": ("ForConditionalGeneration", PAIRED),
    "MBart": ("ForConditionalGeneration", PAIRED),
    "BlenderbotSmall": ("ForConditionalGeneration", PAIRED),
    "M2M100": ("ForConditionalGeneration", PAIRED),
    "T5": ("ForConditionalGeneration", BUCKETED),
    "MT5": ("ForConditionalGeneration", BUCKETED),
    "UMT5": ("ForConditionalGeneration", BUCKETED),
    "SwitchTransformers": ("ForConditionalGeneration", {**BUCKETED, "num_experts": 4}),
}


def two_sequences(name: str) -> Family:
    kind, config = TWO_SEQUENCES[name]
    tokenizer = unigram()
    model = made(name, kind, vocab_size=len(tokenizer), **config)
    return Family(name=name, model=model, question=question(model, TEXT, tokenizer, continuation=TEXT))


# ---- images ---------------------------------------------------------------------------------------------------------

WINDOWED = {
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "image_size": 32,
    "patch_size": 4,
    "initializer_range": 0.2,
}
REDUCED = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [16, 32],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [2, 4],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
    "patch_size": 4,
    "image_size": 32,
    "initializer_range": 0.2,
}
IMAGES: dict[str, dict[str, Any]] = {
    "ViT": VISION,
    "DeiT": VISION,
    "Beit": {**VISION, "use_relative_position_bias": True, "use_absolute_position_embeddings": True},
    "Dinov2": {**VISION, "mlp_ratio": 2},
    "Dinov2WithRegisters": {**VISION, "num_register_tokens": 2, "mlp_ratio": 2},
    "ViTMSN": VISION,
    "IJepa": VISION,
    "Swin": WINDOWED,
    "Swinv2": WINDOWED,
    "Segformer": REDUCED,
}


def image(name: str) -> Family:
    config = {"id2label": {0: "red", 1: "blue"}, "label2id": {"red": 0, "blue": 1}, **IMAGES[name]}
    model = made(name, "ForImageClassification", **config)
    return Family(name=name, model=model, question=question(model, picture(0), image_processor()))


def image_and_text(name: str, beside: int) -> Family:
    entry = gallery(f"image-text-similarity/{name}")
    asked = question(entry.model, entry.inputs[0], entry.processor)
    return Family(name=name, model=entry.model, question=asked, beside=beside)


# ---- sound and text -------------------------------------------------------------------------------------------------

HEARD = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "num_mel_bins": 8,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_source_positions": LENGTH,
    "max_target_positions": 64,
    "init_std": 0.2,
    "decoder_start_token_id": 3,
    **NAMED,
}


def sound() -> Family:
    """Features in, tokens out: both sequences have the same length here."""
    model = made("Whisper", "ForConditionalGeneration", **HEARD)
    features = torch.randn(1, 8, 2 * LENGTH, generator=torch.Generator().manual_seed(0))
    alone = question(model, {"input_features": features})
    units = tuple(Unit(index=i, text=str(i), stream=("encoder", "decoder")[i // LENGTH]) for i in range(2 * LENGTH))
    spans = (
        Span(first=0, last=LENGTH, ids="input_features"),
        Span(first=LENGTH, last=2 * LENGTH, ids="decoder_input_ids"),
    )
    item = replace(alone.items[0], layouts=(Layout(units=units, spans=spans),))
    tensors = {"input_features": features, "decoder_input_ids": ids()["input_ids"]}
    asked = replace(alone, passes=(replace(alone.passes[0], tensors=tensors),), items=(item,))
    return Family(name="Whisper", model=model, question=asked)


OTHERS: dict[str, Callable[[], Family]] = {
    "Whisper": sound,
    "CLIP": lambda: image_and_text("clip", 0),
    "Siglip": lambda: image_and_text("siglip", 1),
}
NAMES = [*TEXTS, *TWO_SEQUENCES, *IMAGES, *OTHERS]


@cache
def family(name: str) -> Family:
    """The family of that name, made once. Its model is shared: leave it as it is."""
    if name in TEXTS:
        return text(name)
    if name in TWO_SEQUENCES:
        return two_sequences(name)
    return image(name) if name in IMAGES else OTHERS[name]()


# ---- the oracle -----------------------------------------------------------------------------------------------------

STATED = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}
TOWERS = {"image": "vision_model_output", "text": "text_model_output"}


def opened(model: nn.Module) -> nn.Module:
    """A copy that computes attention openly; where that is decided when a model is made, one that is made anew."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    if twin.config._attn_implementation != "eager":
        twin = type(model)._from_config(copy.deepcopy(model.config), attn_implementation="eager").eval()
        twin.load_state_dict(model.state_dict())
    return twin


def own(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, list[Tensor]]:
    """The weights [1, H, Q, K] that a model states itself, by stream; the only stream of a model has no name."""
    with torch.no_grad():
        output = opened(model)(**tensors, output_attentions=True)
    if output.get("attentions") is not None:
        return {"": list(output.attentions)}
    if "vision_model_output" in output:
        return {stream: list(output[name].attentions) for stream, name in TOWERS.items()}
    return {stream: list(output[name]) for stream, name in STATED.items()}
