"""Interception: which torch operation is being called, by which module. No rules here."""

from clearhead.tape.mode import Interpreter, Tape
from clearhead.tape.names import Function, Operation, operation, resolve, writes_in_place

__all__ = ["Function", "Interpreter", "Operation", "Tape", "operation", "resolve", "writes_in_place"]
