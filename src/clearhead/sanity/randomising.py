"""Models with random weights for a while: layer by layer from the top, or all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.errors import ModelError
from clearhead.lookups import Blanks
from clearhead.question import Question
from clearhead.removal import called
from clearhead.sanity.settling import single
from clearhead.tape import Function, Operation, Tape, is_tensor, picked

Parameters = tuple[nn.Parameter, ...]

LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)  # whose members are layers
TOGETHER = 2**22  # entries of a tensor that are shuffled at a time: the order of as many has 32 MiB


# ---- which weights -------------------------------------------------------------------------------------------------


def layers(question: Question) -> dict[str, Parameters]:
    """The parameters that the model uses to answer, by the layer they belong to, from the top down.

    A layer is a member of a list of modules, such as `encoder.layer.5`, or else the largest module without such a list
    in it, such as `embeddings`; a parameter of a module that holds lists stands alone. The order is that in which one
    forward pass first uses them, reversed. A parameter that several modules share belongs to the one that uses it
    first: a head tied to the embeddings goes with these, last. What the pass never touches is left out.

    Raises UsageError for several inputs, ModelError if the model fails.

    >>> from clearhead import Settings
    >>> from clearhead.subjects import Loaded, Subject, Wanted
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> subject = Subject(Loaded(model=model, processor=None, name="toy", task="tensors", pooling="mean"))
    >>> list(layers(subject.question({"input": torch.ones(1, 3)}, Wanted(), Settings())))
    ['2', '0']
    """
    single(question)
    using = _Using(question.model)
    with question.evaluated(), torch.no_grad():
        for part in question.passes:
            called(question, part.tensors, using)
    owners: dict[int, list[str]] = {}
    _owners(question.model, "", owners, whole=True)
    held: dict[str, list[nn.Parameter]] = {}
    for parameter, module in using.found:
        own = owners[id(parameter)]
        held.setdefault(next((each for each in own if _inside(module, each)), own[0]), []).append(parameter)
    return {name: tuple(members) for name, members in reversed(held.items())}


class _Using(Blanks):
    """Notes each parameter when it is first used, and the module that uses it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__("zero")
        self.tape = Tape(self._interpret, model)
        self.found: list[tuple[nn.Parameter, str]] = []
        self._waiting = {id(each): each for each in model.parameters()}

    def _interpret(self, operation: Operation, function: Function, args: Any, kwargs: dict[str, Any]) -> Any:
        for tensor in picked((*args, *kwargs.values()), is_tensor):
            parameter = self._waiting.pop(id(tensor), None)
            if parameter is not None:
                self.found.append((parameter, self.tape.module()))
        return super()._interpret(operation, function, args, kwargs)


def _owners(module: nn.Module, path: str, found: dict[int, list[str]], *, whole: bool = False) -> None:
    """The layers that each parameter is registered in, by its id; `whole` modules fall into their parts."""
    if not whole and not any(isinstance(each, LISTS) and _weighty(each) for each in module.modules()):
        for parameter in module.parameters():
            found.setdefault(id(parameter), []).append(path)
        return
    for name, parameter in module.named_parameters(path, recurse=False):
        found.setdefault(id(parameter), []).append(name)
    children = [(name, child) for name, child in module.named_children() if _weighty(child)]
    alone = whole and len(children) == 1 and not module._parameters
    for name, child in children:
        below = f"{path}.{name}" if path else name
        if isinstance(module, LISTS) and not alone:
            for parameter in child.parameters():
                found.setdefault(id(parameter), []).append(below)
        else:
            _owners(child, below, found, whole=alone)


def _weighty(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _inside(module: str, layer: str) -> bool:
    return module == layer or module.startswith(f"{layer}.")


# ---- random weights ------------------------------------------------------------------------------------------------


@contextmanager
def randomised(parameters: Iterable[nn.Parameter], seed: int = 0) -> Iterator[None]:
    """Within the block the entries of each parameter stand in random order; afterwards each has its old bits.

    What was learned is gone, while every tensor keeps its values, and so its mean, spread and number type: norms stay
    near 1, nothing overflows, and values after the change are as large as before, so that a map cannot differ by scale
    alone. Adebayo et al. 2018, section 3, draw as before training, which no model tells in general and which leaves
    trained activations far away. A parameter whose entries are all the same stays as it is. Tensors of more than 4
    million entries are shuffled in parts of as many. Blocks may lie within each other. While it lasts, the parameters
    are in memory twice; buffers stay. Raises ModelError for parameters on the meta device.

    >>> layer = nn.Linear(3, 2)
    >>> before = layer.weight.detach().clone()
    >>> with randomised([layer.weight]):
    ...     torch.equal(layer.weight.flatten().sort()[0], before.flatten().sort()[0])
    True
    >>> torch.equal(layer.weight, before)
    True
    """
    draw = torch.Generator().manual_seed(seed)
    members = list({id(each): each for each in parameters}.values())
    if any(each.is_meta for each in members):
        raise ModelError("Weights must be in memory to be made random; some are offloaded. Load the model whole.")
    old = [parameter.detach().clone() for parameter in members]
    try:
        for parameter in members:
            write(parameter, _shuffled(parameter.detach(), draw))
        yield
    finally:
        for parameter, values in zip(members, old, strict=True):
            write(parameter, values)


def write(parameter: Tensor, values: Tensor, rows: Tensor | None = None) -> None:
    """Overwrite a parameter, or some of its rows, whether it asks for gradients or was made without any."""
    with torch.inference_mode(parameter.is_inference()), torch.no_grad():
        if rows is None:
            parameter.copy_(values)
        else:
            parameter[rows] = values


def _shuffled(values: Tensor, draw: torch.Generator) -> Tensor:
    flat = values.reshape(-1)
    parts = [flat[first : first + TOGETHER] for first in range(0, len(flat), TOGETHER)]
    shuffled = [each[torch.randperm(len(each), generator=draw).to(each.device)] for each in parts]
    return torch.cat(shuffled).reshape(values.shape) if shuffled else values
