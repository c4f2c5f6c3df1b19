"""A model with its processor: loading, tasks, inputs to units, targets."""

from clearhead.subjects.loading import Loaded, Pooling, Task, check_pooling, check_task, load, task_of
from clearhead.subjects.subject import Subject
from clearhead.subjects.targets import Wanted

__all__ = ["Loaded", "Pooling", "Subject", "Task", "Wanted", "check_pooling", "check_task", "load", "task_of"]
