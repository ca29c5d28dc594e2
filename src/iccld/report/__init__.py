"""A finished or half-finished run, told on one self-contained page (`write_report`), and the pictures it shows.

`iccld.report.pictures` makes those pictures from a predictor and therefore needs torch; nothing imported here does.
"""

from iccld.report.page import write_report

__all__ = ["write_report"]
