"""Where arrays live: one mesh over all devices, the state replicated, batches split along `data`."""

from jaxft.parallel.mesh import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    peak_bytes,
    put_batch,
    replicate,
    replicated,
)
from jaxft.parallel.overlap import one_late

__all__ = [
    "batch_sharding",
    "check_batch_size",
    "data_mesh",
    "one_late",
    "peak_bytes",
    "put_batch",
    "replicate",
    "replicated",
]
