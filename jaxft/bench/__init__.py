"""How fast a step is on the devices present, and what share of their peak that is."""

from jaxft.bench.work import Work, count_flops, make_work

__all__ = ["Work", "count_flops", "make_work"]
