"""What a finished run leaves for people: before and after, with intervals; predictions; a picture of some of them."""

from jaxft.report.curve import draw_curve
from jaxft.report.report import Judged, judge, table, write_report
from jaxft.report.samples import draw_samples, write_samples

__all__ = ["Judged", "draw_curve", "draw_samples", "judge", "table", "write_report", "write_samples"]
