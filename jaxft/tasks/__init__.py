"""Kinds of label: what loss, which figures, how a prediction is read off the logits."""

from jaxft.tasks.tasks import UNLABELLED, Task, get_task

__all__ = ["UNLABELLED", "Task", "get_task"]
