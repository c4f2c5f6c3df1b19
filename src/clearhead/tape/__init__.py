"""Interception: which torch operation is being called, by which module. No rules here."""

from clearhead.tape.arguments import constants_detached, dependent, given_back, is_tensor, mapped, picked
from clearhead.tape.functions import OpaqueError, apart
from clearhead.tape.keeping import Keeper, Kept, address
from clearhead.tape.mode import Interpreter, Tape
from clearhead.tape.modules import ModuleTape
from clearhead.tape.names import Function, Operation, operation, resolve, writes_in_place
from clearhead.tape.weights import Names

__all__ = [
    "Function",
    "Interpreter",
    "Keeper",
    "Kept",
    "ModuleTape",
    "Names",
    "OpaqueError",
    "Operation",
    "Tape",
    "address",
    "apart",
    "constants_detached",
    "dependent",
    "given_back",
    "is_tensor",
    "mapped",
    "operation",
    "picked",
    "resolve",
    "writes_in_place",
]
