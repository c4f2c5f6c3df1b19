"""A model with its processor: loading, tasks, inputs to units, targets, questions."""

from clearhead.subjects.accepting import accepted
from clearhead.subjects.baselines import COMPARING, OPERATORS, REMOVING
from clearhead.subjects.comparing import Compared
from clearhead.subjects.joining import length, repeated, shape
from clearhead.subjects.loading import Loaded, Pooling, check_pooling, load
from clearhead.subjects.subject import Subject, check_kinds, kind
from clearhead.subjects.tasks import NAMES as TASKS
from clearhead.subjects.tasks import SIMILARITY, TENSORS, check_task, reads_images, task_of
from clearhead.subjects.wanted import Score, Wanted, one_each, single
from clearhead.subjects.weights import valued

__all__ = [
    "COMPARING",
    "OPERATORS",
    "REMOVING",
    "SIMILARITY",
    "TASKS",
    "TENSORS",
    "Compared",
    "Loaded",
    "Pooling",
    "Score",
    "Subject",
    "Wanted",
    "accepted",
    "check_kinds",
    "check_pooling",
    "check_task",
    "kind",
    "length",
    "load",
    "one_each",
    "reads_images",
    "repeated",
    "shape",
    "single",
    "task_of",
    "valued",
]
