"""The weights of a model with their values, also those that are offloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def valued(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters of each module by name; those that `accelerate` keeps elsewhere are loaded, module by module.

    A weight that another loader keeps elsewhere comes as it is, on the meta device.

    >>> [name for name, _ in valued(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))]
    ['0.weight', '0.bias']
    """
    for path, module in model.named_modules():
        with _loaded(module):
            for name, parameter in module.named_parameters(path, recurse=False):
                yield name, parameter.detach()


@contextmanager
def _loaded(module: nn.Module) -> Iterator[None]:
    """The weights of a module where it computes, for a while: what the hook that `accelerate` set on it does."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None or not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)
