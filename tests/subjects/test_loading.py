"""What a sentence-embedding folder says of its pooling is what is explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clearhead.errors import ModelError
from clearhead.subjects.loading import _pooling


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean", "embedding_dimension": 384}, "mean"),
        ([], "mean"),
        (None, "mean"),
    ],
)
def test_the_folder_is_believed(tmp_path: Path, said: Any, mode: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    if said is not None:
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    assert _pooling(str(tmp_path)) == mode


@pytest.mark.parametrize(
    "said",
    [
        {"pooling_mode_lasttoken": True},
        {"pooling_mode": "max"},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
    ],
)
def test_another_pooling_is_refused_not_guessed(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match="pooled by mean or cls"):
        _pooling(str(tmp_path))
