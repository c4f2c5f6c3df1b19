"""A base for small models that compute without weights: a model has some, or it is refused."""

from __future__ import annotations

import torch
from torch import nn


class Weighted(nn.Module):
    """With a weight that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(1))
