"""Every report of the project is made here: one HTML file that needs nothing outside itself.

`page` escapes, formats and writes; `grid` and `plots` draw; one file per kind of report composes them (`erase`).
"""

from scotoma.report.erase import ErasePictures, erase_report
from scotoma.report.page import write_report

__all__ = ["ErasePictures", "erase_report", "write_report"]
