"""Models and their processors, from a folder or a hub id: safetensors only, remote code only when asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from clearhead import zoo
from clearhead.errors import ModelError, choice
from clearhead.subjects import tasks
from clearhead.subjects.tasks import check_task

Pooling = Literal["mean", "cls"]
_PROCESSORS = {"text": "AutoTokenizer", "image": "AutoImageProcessor", "both": "AutoProcessor"}  # by what a task reads
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}  # as older folders spell them


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A model as it came from its folder."""

    model: nn.Module
    processor: Any
    name: str
    task: str
    pooling: str
    warnings: tuple[str, ...] = ()


def load(path: str | Path, *, task: str | None, pooling: str | None, trust_remote_code: bool, **asked: Any) -> Loaded:
    """The model and processor in `path`, or behind a hub id; what is `asked` of transformers' loader, where not None.

    Raises ModelError, or UsageError for an unknown task.
    """
    import transformers

    check_pooling(pooling)
    wanted = check_task(task)
    shown, name = _place(str(path))
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **options)
        row = tasks.task(wanted or tasks.named_by(config.architectures or ()))
        kind = getattr(transformers, row.auto)
        if wanted and not trust_remote_code:
            _check_head(name, config, kind, wanted)
        more = {name: value for name, value in asked.items() if value is not None}
        model, report = kind.from_pretrained(name, use_safetensors=True, output_loading_info=True, **options, **more)
        processor = getattr(transformers, _PROCESSORS[row.reads]).from_pretrained(name, **options)
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"The model {name!r} cannot be loaded: {_first_lines(error)}") from error
    except Exception as error:
        kind_of = type(error).__name__
        raise ModelError(f"The model {name!r} cannot be read ({kind_of}): {_first_lines(error)}") from error
    return Loaded(
        model=model.eval(),
        processor=processor,
        name=shown,
        task=row.name,
        pooling=pooling or (_pooling(name) if row.name == tasks.SIMILARITY else "mean"),
        warnings=_missing(report.get("missing_keys", ())),
    )


def check_pooling(pooling: str | None) -> str | None:
    """The pooling itself, if there is one of that name. Raises UsageError."""
    if pooling is not None and pooling not in get_args(Pooling):
        raise choice("pooling", pooling, get_args(Pooling))
    return pooling


def _place(name: str) -> tuple[str, str]:
    """The name to show and where to load from: a model in the box, a folder, or a hub id.

    Of a folder the last two names are shown, which look like a hub id and give no home away.
    """
    if name.startswith(zoo.PREFIX) and not Path(name).exists():
        return name, str(zoo.folder(name))
    _inspect(name)
    return ("/".join(Path(name).resolve().parts[-2:]) if Path(name).is_dir() else name), name


def _inspect(name: str) -> None:
    """Say what is wrong with a local folder before a library guesses."""
    folder = Path(name)
    looks_local = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if not folder.exists():
        if looks_local:
            raise ModelError(f"A model is a folder or a hub id; there is no folder {name!r}.")
        return
    if not folder.is_dir():
        raise ModelError(f"A model is a folder or a hub id; {name!r} is a file.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"A model folder holds a config.json; {name!r} has none.")
    if not any(folder.glob("*.safetensors")):
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
        found = f"only {', '.join(others)}" if others else "no weights"
        raise ModelError(
            f"Weights must be safetensors (other formats can run code when opened); {name!r} holds {found}. Convert "
            "them with model.save_pretrained(folder)."
        )


def _check_head(name: str, config: Any, kind: Any, wanted: str) -> None:
    """Raise ModelError if no model of the folder's family does the task that was asked for."""
    if type(config) in getattr(kind, "_model_mapping", (type(config),)):
        return
    listed = ", ".join(config.architectures or ()) or type(config).__name__
    own = tasks.named_by(config.architectures or ())
    raise ModelError(
        f"The model {name!r} ({listed}) has no head for {wanted}; its task is {own}. Leave out the task, or choose "
        "another model."
    )


def _pooling(name: str) -> str:
    """What a sentence-embedding model says about its pooling; the mean if it says nothing. Raises ModelError."""
    said = _said(name, "1_Pooling/config.json")
    if not isinstance(said, dict):
        return "mean"
    older = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    modes = {str(_POOLINGS.get(key, key)) for key in (*older, said.get("pooling_mode")) if key}
    if len(modes) == 1 and modes <= set(get_args(Pooling)):
        return modes.pop()
    raise ModelError(
        f"Tokens are pooled by {' or '.join(get_args(Pooling))}; {name!r} says {', '.join(sorted(modes)) or 'nothing'}."
        " Choose with pooling=..., or pass tensors and a target function that pools as the model does."
    )


def _said(name: str, file: str) -> Any:
    """A JSON file of a folder or hub id; None if there is none."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return json.loads(Path(path).read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None


def _missing(keys: Any) -> tuple[str, ...]:
    keys = sorted(keys)
    if not keys:
        return ()
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return (f"Weights missing from the folder were made up at random: {shown}. Anything they touch means nothing.",)


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
