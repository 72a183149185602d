"""Kinds of label: what loss, which figures, how a prediction is read off the logits."""

from jaxft.tasks.tasks import Task, get_task

__all__ = ["Task", "get_task"]
