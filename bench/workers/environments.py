"""One virtual environment for each library that is measured beside clearhead, made when it is first needed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.workers.pipes import ROOT

HOME = ROOT / ".peers"
CONSTRAINTS = "constraints.txt"
VISION = "torchvision==0.28.0"  # goes with torch 2.13.0

# What pip is told, one call after the other. `{torch}` is our own pin; `--constraint` holds transformers to ours too.
RECIPES: dict[str, tuple[str, ...]] = {
    "captum": (f"--constraint {CONSTRAINTS} torch transformers captum==0.9.0",),
    # The release was tested with this transformers and imports names that version 5 has no more. Its efficient mode
    # needs none of what it asks for beside these (bitsandbytes, open_clip_torch, accelerate).
    "lxt": (f"{{torch}} transformers==4.52.4 {VISION} matplotlib click", "--no-deps lxt==2.1 zennit==0.5.1"),
    "zennit": (f"--constraint {CONSTRAINTS} torch {VISION} zennit==0.5.1",),
}


class UnavailableError(Exception):
    """An environment could not be made; the message is what pip or venv said last."""


def ready(name: str, *, arguments: str = "", home: Path = HOME, recipes: Mapping[str, Sequence[str]] = RECIPES) -> Path:
    """The interpreter of an environment, which is made if it is not there. Raises UnavailableError."""
    folder = home / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    steps = [step.format(torch=pinned("torch")) for step in recipes[name]]
    said = "\n".join(steps)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == said:
        return python
    print(
        f"Installing {name} into {folder.relative_to(home.parent)}. The first time this takes some minutes.",
        file=sys.stderr,
    )
    if not python.exists():
        _called([sys.executable, "-m", "venv", str(folder)])
    for step in steps:
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _called([*pip, *shlex.split(arguments), *shlex.split(step)])
    stamp.write_text(said, encoding="utf-8")
    return python


def pinned(name: str) -> str:
    """Our own pin of a package, as constraints.txt has it."""
    text = (ROOT / CONSTRAINTS).read_text(encoding="utf-8")
    found = re.search(rf"^{name}==[^\s;]+", text, flags=re.MULTILINE)
    if found is None:
        raise UnavailableError(f"{CONSTRAINTS} has no pin of {name}")
    return found.group()


def _called(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnavailableError(str(error)) from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        raise UnavailableError((errors or lines or ["it said nothing"])[-1])
