"""The least time a compiled step can take on a target, by what is published of its devices. Nothing of it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from jaxft.explain.collectives import Exchange
from jaxft.parallel.targets import Figures


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that a step takes at least on each device, for each of four things that it needs.

    Each can go on beside the others, so the longest is the least time of a step, not their sum; a step whose parts wait for
    each other takes up to the sum, and one whose kernels do not reach the published figures longer.

    Attributes:
      compute: FLOPs of convolutions and matrix products / the device's peak in the step's dtype.
      memory: bytes between main memory and cores / its bandwidth.
      links: bytes sent to devices of the same slice (TPU) or host (NVIDIA) / all links of a device together.
      network: bytes sent to other slices or hosts / a device's share of their network; None where that is not published.
      images_per_second: of the whole batch, if a step takes no longer than the longest of these.
    """

    compute: float
    memory: float
    links: float
    network: float | None
    images_per_second: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory, self.links, self.network or 0.0)

    @property
    def bound(self) -> str:
        """What takes the longest: "compute", "memory", "links" or "network"."""
        return max(("compute", "memory", "links", "network"), key=lambda name: getattr(self, name) or 0.0)


def roofline(
    figures: Figures,
    *,
    flops: float,
    dtype: str,
    nbytes: float,
    link_bytes: float,
    network_bytes: float,
    batch_size: int,
) -> Roofline:
    """See `Roofline`.

    Args:
      figures: of a device.
      flops, nbytes, link_bytes, network_bytes: of each device.
      dtype: "float32" or "bfloat16".
      batch_size: of all devices.
    """
    compute = flops / (figures.bfloat16 if dtype == "bfloat16" else figures.float32)
    memory, links = nbytes / figures.bandwidth, link_bytes / figures.link
    network = 0.0 if not network_bytes else None if figures.network is None else network_bytes / figures.network
    longest = max(compute, memory, links, network or 0.0)
    return Roofline(compute, memory, links, network, batch_size / longest if longest else float("inf"))


def homes(mesh: Mesh) -> tuple[int, ...]:
    """For each place in a mesh what its device has fast links within: its slice (TPU), its host (others)."""

    def home(device: Any) -> int:
        return getattr(device, "slice_index", None) or 0 if device.platform == "tpu" else device.process_index

    return tuple(home(device) for device in mesh.devices.flat)


def bytes_sent(found: Sequence[Exchange], homes: Sequence[int], slices: int = 1) -> tuple[float, float]:
    """Bytes that each device sends in a step: over links to devices of the same slice or host, and over the network to others.

    With n devices in h homes of m each, and b bytes of results on each device, by the algorithms that send the least: an
    all-reduce sends 2(m-1)/m b over links (a ring, or reduce-scatter and all-gather) and 2(h-1)/h b/m over the network, each
    device its own share; an all-gather half of that; a reduce-scatter, whose results are the shares, as an all-gather of n b;
    an all-to-all what is not for itself.

    Args:
      found: of `exchanges`.
      homes: of each place in the mesh the slice (TPU) or the host (NVIDIA) it is in.
      slices: of TPUs: what is sent between them stands in the program as "send".
    """
    links = network = 0.0
    for exchange in found:
        groups = exchange.groups or (tuple(range(len(homes))),)
        sent = [_of_group(exchange, group, homes, slices) for group in groups]
        links += exchange.times * max(link for link, _ in sent)
        network += exchange.times * max(far for _, far in sent)
    return links, network


def _of_group(exchange: Exchange, group: Sequence[int], homes: Sequence[int], slices: int) -> tuple[float, float]:
    kind, size, count = exchange.kind, exchange.nbytes, len(group)
    apart = len({homes[place] for place in group if place < len(homes)})
    if kind == "send":
        return 0.0, size * (2 * (slices - 1) / slices if exchange.transfer == "ALL_REDUCE" else 1)
    if kind == "recv" or count < 2:
        return 0.0, 0.0
    if kind == "collective-permute":
        return (0.0, size) if apart > 1 else (size, 0.0)
    together = count / apart
    if kind == "all-to-all":
        return (together - 1) / count * size, (count - together) / count * size
    ways = 2 if kind == "all-reduce" else 1
    whole = size * count if kind == "reduce-scatter" else size
    return ways * (together - 1) / together * whole, ways * (apart - 1) / apart * whole / together
