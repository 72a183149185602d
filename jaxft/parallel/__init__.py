"""Where arrays live: one mesh over all devices, the state replicated, batches split along `data`; and whether they fit."""

from jaxft.parallel.memory import Limit, Memory, checked, device_limit, fits, gigabytes, memory_of, peak_bytes
from jaxft.parallel.mesh import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    put_batch,
    replicate,
    replicated,
)
from jaxft.parallel.overlap import one_late

__all__ = [
    "Limit",
    "Memory",
    "batch_sharding",
    "check_batch_size",
    "checked",
    "data_mesh",
    "device_limit",
    "fits",
    "gigabytes",
    "memory_of",
    "one_late",
    "peak_bytes",
    "put_batch",
    "replicate",
    "replicated",
]
