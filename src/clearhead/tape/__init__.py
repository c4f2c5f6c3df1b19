"""Interception: which torch operation is being called, by which module. No rules here."""

from clearhead.tape.arguments import constants_detached, dependent, is_tensor, mapped, picked
from clearhead.tape.keeping import Keeper, Kept
from clearhead.tape.mode import Interpreter, Tape
from clearhead.tape.modules import ModuleTape
from clearhead.tape.names import Function, Operation, operation, resolve, writes_in_place

__all__ = [
    "Function",
    "Interpreter",
    "Keeper",
    "Kept",
    "ModuleTape",
    "Operation",
    "Tape",
    "constants_detached",
    "dependent",
    "is_tensor",
    "mapped",
    "operation",
    "picked",
    "resolve",
    "writes_in_place",
]
