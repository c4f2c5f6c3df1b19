"""Value zeroing: how much a position's vector changes in a block when another position has no value to give."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.attention.making import BLIND, Looked, Shares, made
from clearhead.attention.mixing import resampled
from clearhead.config import Settings
from clearhead.errors import ClearheadError, ModelError, UsageError
from clearhead.maps import RelevanceMap
from clearhead.question import Aim, Question
from clearhead.sight.capture import Gradients, Layer, Row, seen
from clearhead.sight.modules import Called, first_tensor, sequence, watched
from clearhead.sight.reading import starts
from clearhead.sight.sites import Site
from clearhead.sight.watch import FUSED, PRODUCTS, Watch
from clearhead.tape import Function, Operation, is_tensor, mapped, picked

MOST_SECONDS = 120.0  # what takes longer is refused without `force`
AGREE = 1e-3  # of the largest entry: how far a block run again may be from what it gave

Block = Called[Tensor]


def value_zeroing(question: Question, settings: Settings) -> Iterator[tuple[int, RelevanceMap]]:
    r"""How far a position's vector turns when another gives no value: $C_{ij} = 1 - \cos(x_i, x_i^{\neg j})$.

    x is a block's output, $x^{\neg j}$ the same with the value vectors of position j zeroed in all heads of its
    attention; rows are normalised to 1. By default rolled out through all blocks, $r \leftarrow C_l^\top r$ from the
    last to the first (residual paths are part of a block, so nothing is added to C); with `layer` that block alone. r
    begins where the target is read. Runs each block once per position. Raises UsageError for a layer that does not
    exist, for sequences that look at each other and for what would take minutes (`force` allows it); ModelError
    without attention. Mohebbi et al. 2023, "Quantifying Context Mixing in Transformers", sections 3 and 4.
    """
    wanted = _number(settings)
    with question.evaluated() as notes:
        for i in range(len(question.items)):
            own = question.alone(i)
            zeroed = Zeroed(own, settings.force)
            for aim in own.items[0].aims:
                looked = zeroed.looked(aim)
                yield i, made(looked, zeroed.shares(looked, wanted), "value-zeroing", notes)


def _number(settings: Settings) -> int | None:
    if isinstance(settings.layer, str):
        raise UsageError(
            f"`layer` must be a number for value zeroing, which counts the blocks of a sequence; found "
            f"{settings.layer!r}. Give a number, or leave it out for all layers."
        )
    if settings.heads is not None:
        raise UsageError(
            "Value zeroing takes the values of all heads away; `heads` must be left out. Methods that take it: "
            "attention, rollout, gradient-attention."
        )
    return settings.layer


@dataclass(frozen=True, eq=False)
class Step:
    """An attention in which a sequence looks at itself, the block around it, and which of its attentions it is."""

    layer: Layer
    block: Block
    number: int


class Zeroed:
    """A question about one item, whose blocks were seen and are run again with values taken away."""

    def __init__(self, question: Question, force: bool = False) -> None:
        self.question, self._force = question, force
        self._see("late")
        crossing = next((e for e in self.sight.layers if e.crossing and e.query.name and e.key.name), None)
        if crossing is not None:
            raise UsageError(
                f"Value zeroing is defined for one sequence that looks at itself; here "
                f"{self.sight.stream(crossing.query)!r} looks at {self.sight.stream(crossing.key)!r}. Choose "
                "method='rollout' or 'gradient-attention', which follow both."
            )
        self._tables: dict[Step, Tensor] = {}

    def _see(self, gradients: Gradients) -> None:
        """Make the passes, and note for each attention the calls that it is part of."""
        chains = list[tuple[Block, ...]]()

        def keep(call: Block, tensor: Tensor) -> Tensor | None:
            return tensor.detach().clone() if sequence(tensor) is not None and _has_parts(call.module) else None

        with watched(self.question.model, keep, arguments=True) as calls:

            def put(_: Site) -> None:
                chains.append(tuple(calls.open))

            self.sight = seen(self.question, gradients=gradients, put=put)
        self.steps = _steps(self.sight.layers, chains)

    def looked(self, aim: Aim) -> Looked:
        """The target of an aim, and where it is read. Raises ModelError if it depends on no attention."""
        found = self._looked(aim)
        if not found.begin:
            self._see("each")
            found = self._looked(aim)
        if not found.begin:
            raise ModelError(
                "The target must depend on what an attention gives out; this one depends on none. Choose another "
                "target, or method='lrp', which follows every operation."
            )
        return found

    def _looked(self, aim: Aim) -> Looked:
        with torch.inference_mode(False), torch.enable_grad():
            target, value = aim.ask(self.sight.outputs, 0)
            begin = starts(self.sight, value)
        return Looked(sight=self.sight, target=target, value=value, begin=begin, horizon=aim.horizon)

    # ---- from the target to the input --------------------------------------------------------------------------

    def shares(self, looked: Looked, wanted: int | None) -> Shares:
        """The share of each position in what the target reads: of one block, or through all of them."""
        found: dict[Row, Tensor] = {}
        notes = list[str]()
        for begin, reads in looked.begin.items():
            row, amounts, note = self._pooled(begin, reads.double())
            notes += note
            steps = self._chosen(row, wanted)
            for step in reversed(steps):
                table = self.table(step, blocks=len(steps))
                amounts = resampled(self.sight, row, amounts, len(table)) @ table
            found[row] = found.get(row, 0) + amounts
            names = [step.block.path for step in steps]
            through = f"from {names[0]} to {names[-1]}, rolled out" if len(names) > 1 else f"{names[0]} alone"
            notes.append(f"Value zeroing in {len(names)} block{'s' * (len(names) > 1)}, {through}.")
        return Shares(amounts=found, notes=(*dict.fromkeys(notes), BLIND))

    def _pooled(self, begin: Row, reads: Tensor) -> tuple[Row, Tensor, list[str]]:
        """What learned queries look at, by the weights of their attention: they are no positions of the input."""
        if begin.name:
            return begin, reads, []
        layer = next(each for each in reversed(self.sight.layers) if each.query == begin)
        weights = layer.site.matrix().mean(0).double()
        return layer.key, reads @ weights, [f"{layer.site.place.module} pools by its weights, the mean of all heads."]

    def _chosen(self, row: Row, wanted: int | None) -> list[Step]:
        steps = [step for step in self.steps if step.layer.query == row]
        if not steps:
            raise ModelError(
                f"Value zeroing needs blocks, modules that turn each position's vector into another one and hold one "
                f"attention; {self.sight.stream(row)!r} goes through none. Choose method='rollout'."
            )
        if wanted is None:
            return steps
        if not -len(steps) <= wanted < len(steps):
            raise UsageError(
                f"`layer` must be a number from 0 to {len(steps) - 1}, or below 0 from the end; found {wanted}. Leave "
                "it out for all layers."
            )
        return [steps[wanted]]

    # ---- one block ---------------------------------------------------------------------------------------------

    def table(self, step: Step, *, blocks: int = 1) -> Tensor:
        """C of one block [T, T] in float64, computed once. Raises UsageError if all `blocks` would take minutes."""
        if step not in self._tables:
            self._tables[step] = self._computed(step, blocks)
        return self._tables[step]

    def _computed(self, step: Step, blocks: int) -> Tensor:
        before = time.perf_counter()
        whole = self._again(step, None)
        taken = time.perf_counter() - before
        covers = self.sight.covered(step.layer.query, len(whole))
        columns = [j for j, covered in enumerate(covers) if covered]
        estimate = taken * len(columns) * blocks
        if estimate > MOST_SECONDS and not self._force:
            raise UsageError(
                f"Value zeroing runs each block once per position: {blocks} x {len(columns)} runs, about "
                f"{estimate / 60:.0f} minutes. Allow it with force=True, choose one layer=..., or method='rollout'."
            )
        table = torch.zeros(len(whole), len(whole), dtype=torch.float64)
        for j in columns:
            table[:, j] = _turned(whole, self._again(step, j))
        total = table.sum(-1, keepdim=True)
        alone = torch.eye(len(whole), dtype=table.dtype)  # whom nothing turns is made of itself
        return torch.where(total > 0, table / torch.where(total > 0, total, 1), alone)

    def _again(self, step: Step, position: int | None) -> Tensor:
        """The output of a block [T, d] without the value of a position. Raises ModelError if it cannot be run again."""
        block, site = step.block, step.layer.site
        args, kwargs = _as_it_was(block)
        given = [*picked((*args, *kwargs.values()), is_tensor)]
        inputs = {str(n): tensor for n, tensor in enumerate(given) if tensor.is_floating_point()}
        watch = _Zeroing(self.question.model, inputs, step.number, position, site)
        try:
            with torch.inference_mode(False), torch.no_grad():
                output = first_tensor((watch.tape.under(block.module, *args, **kwargs),))
        except (ClearheadError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            raise ModelError(
                f"Value zeroing runs {block.path!r} again by itself; that failed: {type(error).__name__}: {error}."
            ) from error
        rows, before = (None if each is None else sequence(each) for each in (output, block.output))
        if rows is None or before is None or (position is None and not _alike(rows, before)):
            raise ModelError(
                f"Value zeroing runs {block.path!r} again by itself; it did not give the same twice, so it depends on "
                "more than its arguments. Choose method='rollout'."
            )
        return rows.double().cpu()


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.abs().max())
    return bool(((one - other).abs() <= AGREE * scale).all())


def _turned(x: Tensor, y: Tensor) -> Tensor:
    """The cosine distance of the rows of two tables, exact for small ones: half the squared distance on the sphere."""
    lengths = [torch.linalg.vector_norm(each, dim=-1, keepdim=True) for each in (x, y)]
    u, v = (each / torch.where(length > 0, length, 1) for each, length in zip((x, y), lengths, strict=True))
    zero, other = ((length == 0).squeeze(-1) for length in lengths)
    far = torch.where(zero & other, 0.0, 1.0).to(x)
    return torch.where(zero | other, far, (u - v).square().sum(-1) / 2)


def _has_parts(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _as_it_was(block: Block) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, the first tensor of floats among them as it was then."""
    old = first_tensor((*block.args, *block.kwargs.values()))

    def then(tensor: Tensor) -> Tensor:
        return block.given.clone() if tensor is old and block.given is not None else tensor

    args = tuple(mapped(value, then, where=is_tensor) for value in block.args)
    return args, {name: mapped(value, then, where=is_tensor) for name, value in block.kwargs.items()}


# ---- which block ---------------------------------------------------------------------------------------------------


def _steps(layers: Sequence[Layer], chains: Sequence[tuple[Block, ...]]) -> list[Step]:
    """Each attention in which a sequence looks at itself, with the block around it."""
    own = [(layer, chain) for layer, chain in zip(layers, chains, strict=True) if not layer.crossing]
    inside: dict[tuple[Block, Row], set[str]] = {}
    for layer, chain in own:
        for call in chain:
            inside.setdefault((call, layer.query), set()).add(layer.site.place.module)
    counts: dict[Block, list[Site]] = {}
    for layer, chain in zip(layers, chains, strict=True):
        for call in chain:
            counts.setdefault(call, []).append(layer.site)
    found = list[Step]()
    for layer, chain in own:
        block = _block(layer, chain, inside)
        if block is not None:
            found.append(Step(layer, block, counts[block].index(layer.site)))
    return found


def _block(layer: Layer, chain: Sequence[Block], inside: Mapping[tuple[Block, Row], set[str]]) -> Block | None:
    """The outermost member of a list that holds one attention of the sequence only; without lists any module."""

    def fits(call: Block) -> bool:
        rows = None if call.output is None else sequence(call.output)
        given = None if call.given is None else sequence(call.given)
        alike = rows is not None and given is not None and rows.shape == given.shape
        return alike and rows is not None and len(rows) == layer.site.queries and len(inside[call, layer.query]) == 1

    fitting = [call for call in chain if call.path and fits(call)]
    members = [call for call in fitting if call.member]
    return next(iter(members or fitting), None)


# ---- without a value -----------------------------------------------------------------------------------------------


class _Zeroing(Watch):
    """Makes calls as they are, but the `number`-th attention without the values of a position."""

    def __init__(
        self, model: nn.Module, inputs: Mapping[str, Tensor], number: int, position: int | None, site: Site
    ) -> None:
        super().__init__(model, lambda _: None, inputs)
        self._number, self._position = number, position
        self._index = site.place.key_index
        self._met = 0

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the tape calls for each operation."""
        value, axis = self._value(operation, args, kwargs)
        if value is not None:
            mine, self._met = self._met == self._number, self._met + 1
            if mine and self._position is not None:
                zeroed = self._without(value, axis, self._position)

                def instead(tensor: Tensor) -> Tensor:
                    return zeroed if tensor is value else tensor

                args = tuple(mapped(each, instead, where=is_tensor) for each in args)
                kwargs = {name: mapped(each, instead, where=is_tensor) for name, each in kwargs.items()}
        return super().interpret(operation, function, args, kwargs)

    def _value(
        self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Tensor | None, int]:
        """The values that a call weighs, if it does, and the axis of positions in them."""
        if operation.name == FUSED:
            return (args[2] if len(args) > 2 else kwargs["value"]), -2
        if operation.name not in PRODUCTS:
            return None, 0
        operands = list(picked((*args, *kwargs.values()), is_tensor))
        marks = [self._marks.get(tensor) for tensor in operands]
        table = next((n for n, mark in enumerate(marks) if mark is not None and mark.weights), None)
        if table is None:
            return None, 0
        place = next((n for n in reversed(range(len(operands))) if operands[n] is not operands[table]), table)
        if operation.name == "einsum":
            return operands[place], _summed(next(each for each in args if isinstance(each, str)), table, place)
        return operands[place], -2 if table < place else -1

    def _without(self, value: Tensor, axis: int, position: int) -> Tensor:
        if self._index is not None and self._index.shape == value.shape[:-1]:
            return value.masked_fill((self._index == position + 1).unsqueeze(-1), 0)
        return value.index_fill(axis, torch.tensor([position], device=value.device), 0)


def _summed(equation: str, table: int, place: int) -> int:
    """The axis of an operand of `einsum` along which it is summed with the table."""
    given, _, out = equation.replace(" ", "").partition("->")
    names = given.split(",")
    return next(n for n, letter in enumerate(names[place]) if letter in names[table] and letter not in out)
