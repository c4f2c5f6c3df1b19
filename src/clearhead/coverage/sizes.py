"""From a configuration to a tiny one: every field that is a size is shrunk, by its name alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VOCABULARY, LAYERS, PATCHES = 128, 4, 4

# What the name of a field says it counts: the first that matches. Fields that match nothing are left alone.
ROLES: dict[str, re.Pattern[str]] = {
    role: re.compile(rf"^(?:{pattern})s?$")
    for role, pattern in {
        "vocabulary": r"(\w+_)?(vocab_size|codebook_size|n_vocab|n_token|vocab_size_per_\w+)",
        "position": r"max_position_embeddings|n_positions|n_ctx"
        r"|max_(source|target|sequence|seq|context)_(positions|length|len)|max_2d_position_embeddings|max_seq_len|max_length|context_length|seq_len(gth)?|num_position_embeddings",
        "inner": r"\w*(intermediate|ffn|feedforward|feed_forward|inner|mlp|ff)_?\w*(size|dim|hidden|units)|d_ff"
        r"|n_inner|filter_size|dim_feedforward",
        "head": r"\w*(head_dim|head_size|d_kv|d_head|kv_channels|key_channels|dim_head)|head_dim_\w+|rotary_dim",
        "rank": r"\w*lora_rank|\w*_rank|low_rank_\w*dim",
        "keys": r"\w*(num_key_value_heads|n_kv_heads|num_kv_heads|n_head_kv|num_query_groups|multi_query_group_num)",
        "heads": r"\w*(num_attention_heads|attention_heads|num_heads|n_heads?|num_attn_heads)|linear_num_\w+_heads",
        "layers": r"\w*(num_\w*layers|n_layers?|num_blocks|num_decoder_blocks|depth|layers|num_hidden_groups)",
        "chosen": r"(num_experts_per_tok|moe_topk|moe_k|top_?k|num_selected_experts|num_experts_per_token|moe_top_?k"
        r"|num_experts_per_tok_\w+)",
        "groups": r"n_group|num_expert_groups?",
        "group": r"topk_group",
        "experts": r"\w*(num_\w*experts|n_routed_experts|moe_num_experts|num_routed_experts)",
        "window": r"sliding_window|attention_window|window_size|local_window\w*|chunk_size|attention_chunk_size"
        r"|block_size|local_attention|index_topk|\w*chunk_length|local_radius|global_block_size|max_window_layers",
        "queries": r"num_queries|num_query_tokens|num_latents|num_denoising|num_object_queries",
        "image": r"image_size|img_size|input_size|pretrained_img_size",
        "state": r"\w*(state_size|d_state|ssm_state_size|d_state)",
        "width": r"\w*(hidden_size|hidden_dim|d_model|n_embd|embed_dim|emb_dim|embedding_size|embedding_dim|d_embed"
        r"|projection_dim|proj_dim|model_dim|dim_model|hidden_channels|d_embd|embed_dims|width|adapter_dim"
        r"|conv_dim|lru_width|attention_hidden_size|expert_dim|bottleneck_size|embedding_hidden_size)|dim|d",
    }.items()
}
SMALL: Mapping[str, int] = {
    "vocabulary": VOCABULARY,
    "position": 128,
    "inner": 48,
    "head": 8,
    "rank": 8,
    "keys": 2,
    "heads": 4,
    "layers": LAYERS,
    "chosen": 2,
    "groups": 2,
    "group": 1,
    "experts": 8,
    "window": 4,
    "queries": 6,
    "image": 64,
    "state": 8,
    "width": 32,
}
WIDE = ("inner", "head", "rank", "keys", "heads", "width", "state")  # roles that must fit each other
OPEN = ("vocabulary", "head", "keys", "inner", "width")  # roles that a configuration may leave open
PARTS = 8  # by which wide sizes are divided

Change = Callable[[str, int], int]


def role(name: str) -> str | None:
    """What a field counts, by its name."""
    return next((found for found, pattern in ROLES.items() if pattern.match(name)), None)


def smallest(kind: str, value: int) -> int:
    """Each size by its role alone."""
    return min(value, SMALL[kind])


def divided(kind: str, value: int) -> int:
    """Widths an eighth of what they are, so that they keep their proportions; heads stay."""
    if kind in ("heads", "keys"):
        return value
    return value // PARTS if kind in WIDE and value % PARTS == 0 and value > PARTS else smallest(kind, value)


def narrow(kind: str, value: int) -> int:
    """Widths as they are; fewer layers, words and experts."""
    return value if kind in WIDE else smallest(kind, value)


def shallow(kind: str, value: int) -> int:
    """Only fewer layers."""
    return smallest(kind, value) if kind in ("layers", "vocabulary") else value


@dataclass(frozen=True)
class Way:
    """How a configuration is made small: the size of each field, and what happens to those that have none of their own.

    `fills`: sizes that are left open get one. `stages`: lists of widths by stage are divided.
    """

    size: Change
    fills: bool = False
    stages: bool = True


WAYS: dict[str, Way] = {
    "smallest": Way(smallest),
    "filled": Way(smallest, fills=True),
    "divided": Way(divided),
    "narrow": Way(narrow),
    "shallow": Way(shallow, stages=False),
}


def shrunk(config: Any, way: Way) -> dict[str, Any]:
    """The fields of a configuration that differ, as its class takes them; parts of it are mappings of their own."""
    return _shrunk(config, way, Tokens())


def _shrunk(config: Any, way: Way, tokens: Tokens) -> dict[str, Any]:
    found: dict[str, Any] = {}
    fields = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    layers = [value for name, value in fields.items() if role(name) == "layers" and _whole(value)]
    for name, value in fields.items():
        if isinstance(getattr(type(config), name, None), property):
            continue
        if _is_config(value):
            found[name] = {**_shrunk(value, way, tokens), "model_type": value.model_type}
            continue
        new = _field(name, value, way, layers, tokens)
        if new != value:
            found[name] = new
    return found


def _field(name: str, value: Any, way: Way, layers: list[int], tokens: Tokens) -> Any:
    if name.endswith(("token_id", "token_index", "_token")):
        return tokens.own(value)
    kind = role(name)
    if value is None and way.fills and kind in OPEN:
        return SMALL[kind]
    if isinstance(value, (list, tuple)):
        return _listed(kind, value, way, layers)
    if kind == "image" and isinstance(value, dict):
        return {key: way.size(kind, each) if _whole(each) else each for key, each in value.items()}
    return way.size(kind, value) if kind and _whole(value) else value


def _listed(kind: str | None, value: Any, way: Way, layers: list[int]) -> Any:
    """A list by stage keeps its length and its proportions; one by layer is cut to as many as there will be."""
    if kind is None and len(value) in layers and len(value) > LAYERS:
        return type(value)(value[:LAYERS])
    if not value or not all(map(_whole, value)) or kind is None:
        return value
    if kind == "layers":
        return type(value)(min(each, 1) for each in value)
    if kind in WIDE:
        whole = all(each % PARTS == 0 for each in value)
        return type(value)(each // PARTS for each in value) if whole and way.stages else value
    return type(value)(way.size(kind, each) for each in value)


class Tokens:
    """Special ids within the small vocabulary, each one its own."""

    def __init__(self) -> None:
        self._given: dict[int, int] = {}

    def own(self, value: Any) -> Any:
        """The id in the small vocabulary; one that fits is left alone."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.own(each) for each in value)
        if not _whole(value) or value < VOCABULARY // 2:
            return value
        return self._given.setdefault(value, VOCABULARY - 1 - len(self._given) % (VOCABULARY // 2))


def configs(config: Any) -> Iterator[Any]:
    """A configuration and all that are part of it."""
    yield config
    for value in vars(config).values():
        if _is_config(value):
            yield from configs(value)


def found(config: Any, names: str, default: Any = None) -> Any:
    """The first of several fields that a configuration, or a part of it, has."""
    for each in configs(config):
        for name in names.split():
            value = getattr(each, name, None)
            if value is not None:
                return value
    return default


def _is_config(value: Any) -> bool:
    return hasattr(value, "model_type") and hasattr(value, "to_dict")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
