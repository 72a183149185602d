"""Convolution, pooling and normalisation with torch's meaning, NHWC, in the form that is fast on the backend at hand."""

from jaxft.ops.conv import conv
from jaxft.ops.lowering import plain_ops
from jaxft.ops.norm import batch_norm, layer_norm
from jaxft.ops.pool import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool

__all__ = ["adaptive_avg_pool", "avg_pool", "batch_norm", "conv", "global_avg_pool", "layer_norm", "max_pool", "plain_ops"]
