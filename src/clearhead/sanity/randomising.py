"""Models with random weights for a while: layer by layer from the top, or all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from clearhead.lookups import Noting
from clearhead.question import Question
from clearhead.removal import called

Parameters = tuple[nn.Parameter, ...]


def layers(question: Question) -> dict[str, Parameters]:
    """The parameters that the model uses to answer, by the block or module they belong to, from the top down.

    A block is a member of a list of modules, such as `encoder.layer.5`; what lies outside of lists stands under its
    own module. The order is that in which the forward pass first comes to them, the last first. A parameter that
    several modules share belongs to the lowest, so that a head tied to the embeddings goes with these.

    Raises ModelError if the model fails.
    """
    model, order = question.model, dict[str, int]()
    names = {module: name for name, module in model.named_modules(remove_duplicate=True)}
    hooks = [module.register_forward_pre_hook(lambda module, _: _noted(order, names[module])) for module in names]
    try:
        with question.evaluated(), torch.no_grad():
            for part in question.passes:
                called(question, part.tensors, Noting())
    finally:
        for hook in hooks:
            hook.remove()
    first: dict[str, int] = {}
    for name, place in order.items():
        group = _group(model, name)
        first[group] = min(place, first.get(group, place))
    held: dict[str, list[nn.Parameter]] = {name: [] for name in sorted(first, key=lambda name: first[name])}
    seen: set[int] = set()
    owners = [(name, p) for name, p in model.named_parameters(remove_duplicate=False)]
    for group, members in held.items():
        for name, parameter in owners:
            if _group(model, _called(name, order)) == group and id(parameter) not in seen:
                seen.add(id(parameter))
                members.append(parameter)
    return {name: tuple(members) for name, members in reversed(held.items()) if members}


def _noted(order: dict[str, int], name: str) -> None:
    order.setdefault(name, len(order))


def _called(parameter: str, order: Mapping[str, int]) -> str:
    """The innermost module round a parameter that is called, as not every module is whose weights are used."""
    path = parameter.rpartition(".")[0]
    while path and path not in order:
        path = path.rpartition(".")[0]
    return path


def _group(model: nn.Module, path: str) -> str:
    """The innermost member of the outermost list of modules that a path leads through, or the path itself."""
    steps, module = path.split(".") if path else [], model
    for n, step in enumerate(steps):
        if isinstance(module, nn.ModuleList):
            return ".".join(steps[: n + 1])
        module = getattr(module, step)
    return path


@contextmanager
def randomised(parameters: Iterable[nn.Parameter], seed: int = 0) -> Iterator[None]:
    """Within the block the entries of each parameter stand in random order; afterwards each has its old bits.

    What was learned is gone, while mean, spread and type of every tensor stay, so that the model remains as sound
    numerically as it was: norms stay near 1 and nothing overflows. Adebayo et al. 2018, section 3, draw as before
    training, which no model tells in general.

    >>> layer = nn.Linear(3, 2)
    >>> before = layer.weight.detach().clone()
    >>> with randomised([layer.weight]):
    ...     bool((layer.weight.flatten().sort()[0] == before.flatten().sort()[0]).all())
    True
    >>> bool((layer.weight == before).all())
    True
    """
    draw = torch.Generator().manual_seed(seed)
    members = list(parameters)
    old = [parameter.detach().clone() for parameter in members]
    try:
        with torch.no_grad():
            for parameter in members:
                order = torch.randperm(parameter.numel(), generator=draw).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(members, old, strict=True):
                parameter.copy_(values)
