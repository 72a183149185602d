"""What a comparison found, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from jaxft.columns import aligned
from jaxft.verify.compare import Difference, Parting

#: Relative tolerances of inference, and of a batch in train mode, which is in float64.
SINGLE, DOUBLE = 1e-4, 1e-6
_DOUBT = "where errors grow from stage to stage it may be rounding: --dtype=float64 tells, --gain=0.7 draws milder weights"


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What a comparison found.

    Attributes:
      network, original: ours, and "timm resnet50".
      dtype: what inference was computed in.
      weights: their source and sha256; "seeded N", maybe ", gain G", and "" for random ones.
      images: what the networks saw.
      stages: of each stage the layer that is furthest off.
      layers: how many were compared.
      logits: their difference; `agreement` is the share of images with the same most likely class.
      loss, gradients, statistics: of a batch in train mode in float64; the parameter and the statistic that are furthest off.
        None where it was not run.
      pixels: of pictures prepared by both pipelines; None where none was given.
      parting: where the networks part; None where they do not.
      tolerance: of stages and logits, relative; of the batch in train mode `DOUBLE`.
      versions, date: of all that took part.
    """

    network: str
    original: str
    dtype: str
    weights: str
    sha256: str
    images: str
    stages: tuple[Difference, ...]
    layers: int
    logits: Difference
    agreement: float
    loss: Difference | None
    gradients: Difference | None
    statistics: Difference | None
    pixels: Difference | None
    parting: Parting | None
    tolerance: float
    versions: Mapping[str, str]
    date: str

    @property
    def equal(self) -> bool:
        """Whether all that was compared is within the tolerance."""
        single = (*self.stages, self.logits, self.pixels)
        double = (self.loss, self.gradients, self.statistics)
        near = all(row.max_rel <= self.tolerance for row in single if row is not None)
        return near and all(row.max_rel <= DOUBLE for row in double if row is not None)

    def to_json(self) -> str:
        return json.dumps({"equal": self.equal, **dataclasses.asdict(self)}, indent=1) + "\n"

    def __str__(self) -> str:
        rows = [("", "max abs", "max rel", "cosine")]
        for row in (*self.stages, self.logits, self.pixels, self.loss, self.gradients, self.statistics):
            if row is not None:
                rows.append((row.name, f"{row.max_abs:.1e}", f"{row.max_rel:.1e}", f"{row.cosine:.8f}"))
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "\n".join(
            [
                f"{self.network} against {self.original}, weights {self.weights}"
                + (f" (sha256 {self.sha256[:12]})" if self.sha256 else ""),
                f"{self.images}; {self.layers} layers compared in {self.dtype}; {versions}; {self.date}",
                *aligned(rows, right=(1, 2, 3)),
                f"the most likely class agrees for {self.agreement:.0%} of the images",
                *([str(self.parting)] if self.parting else []),
                *([_DOUBT] if self.parting and self.dtype == "float32" else []),
                "equal within the tolerance" if self.equal else "NOT EQUAL",
            ]
        )
