"""Reads every picture once before a run starts, so that a damaged file is found now and not in the third epoch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxft.data.sources import Source
from jaxft.decoding.decode import BadImage, decode
from jaxft.errors import JaxftError


def find_bad(source: Source, *, threads: int = 4) -> list[tuple[int, str]]:
    """(position, reason) of every picture that cannot be decoded, in order.

    Every file is read to its end, as training will do; JPEGs are decoded at an eighth, which notices the same damage in less
    time.
    """

    def reason(index: int) -> str | None:
        try:
            decode(source[index][0], shrink=lambda height, width: 8)
        except BadImage as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:
        reasons = list(pool.map(reason, range(len(source))))
    return [(number, found) for number, found in enumerate(reasons) if found is not None]


def drop_bad(source: Source, split: str, max_bad_fraction: float) -> tuple[Source, list[str]]:
    """Leaves out undecodable pictures, up to a share; says which.

    Raises:
      JaxftError: more than `max_bad_fraction` are bad, or a class has none left.
    """
    bad = find_bad(source)
    if not bad:
        return source, []
    listed = "; ".join(f"{source.names[number]}: {reason}" for number, reason in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    if len(bad) > max_bad_fraction * len(source):
        raise JaxftError(
            f"{len(bad)} of {len(source)} pictures of {split} cannot be read ({listed}{more}): remove them, or allow a share "
            "with config.data.max_bad_fraction"
        )
    skip = {number for number, _ in bad}
    kept = source.subset([number for number in range(len(source)) if number not in skip])
    if source.labels.dtype == np.int32 and len(np.unique(kept.labels)) < len(np.unique(source.labels)):
        raise JaxftError(f"a class of {split} has no readable picture ({listed}{more})")
    return kept, [f"{len(bad)} pictures of {split} cannot be read and are left out ({listed}{more})"]
