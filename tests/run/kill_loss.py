"""A loss that kills its own process with SIGKILL when it runs the KILL_AFTER-th time, and with SAY_DEVICES says over how many
devices its batch is spread: a user's hook, no seam in the library."""

import os
import signal

import jax

from jaxft.losses import softmax_cross_entropy

_STEPS_LEFT = [int(os.environ.get("KILL_AFTER", "0"))]


def _count() -> None:
    _STEPS_LEFT[0] -= 1
    if _STEPS_LEFT[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def loss(outputs, batch):
    if "SAY_DEVICES" in os.environ:
        jax.debug.inspect_array_sharding(outputs["logits"], callback=lambda found: print("logits on", len(found.device_set)))
    if "KILL_AFTER" in os.environ:
        jax.debug.callback(_count)
    return softmax_cross_entropy(outputs, batch)
