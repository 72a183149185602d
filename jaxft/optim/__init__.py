"""Optimizers as optax transforms of the trainable part: directions by name, rates by step, moments that go on over phases."""

from jaxft.optim.optimizer import make_optimizer
from jaxft.optim.schedules import Schedule, make_schedule

__all__ = ["Schedule", "make_optimizer", "make_schedule"]
