"""torchvision, which some libraries import and never call here, beside a torch without its compiled operators."""

from __future__ import annotations

import importlib
import sys

import torch

_OPERATORS = ("nms", "qnms")  # what torchvision describes to torch whether or not its binary could be loaded
_declared: list[torch.library.Library] = []


def importable() -> None:
    """Import torchvision; where its binary is for another build of torch, declare the operators it describes first."""
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [each for each in sys.modules if each.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)  # what a library declares is gone with it
    importlib.import_module("torchvision")
