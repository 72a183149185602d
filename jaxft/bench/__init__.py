"""How fast a step is on the devices present, and what share of their peak that is."""

from jaxft.bench.bench import Row, run_bench
from jaxft.bench.feed import draw_photos, make_input_work, open_source
from jaxft.bench.machine import machine, matmul_peak, peak
from jaxft.bench.table import describe, format_table, to_json
from jaxft.bench.timing import OutOfMemory, Timing, ratio, time_in_turns
from jaxft.bench.work import Work, count_flops, make_work

__all__ = [
    "OutOfMemory",
    "Row",
    "Timing",
    "Work",
    "count_flops",
    "describe",
    "draw_photos",
    "format_table",
    "machine",
    "make_input_work",
    "make_work",
    "matmul_peak",
    "open_source",
    "peak",
    "ratio",
    "run_bench",
    "time_in_turns",
    "to_json",
]
