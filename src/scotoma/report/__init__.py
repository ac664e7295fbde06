"""Every report of the project is made here: one HTML file that needs nothing outside itself.

`page` escapes, formats and writes; `grid` and `plots` draw; one file per kind of report composes them (`erase` with its
`pairs`, `audit` with its `rates`, `gallery` and `measured`; `labelling` with its tables). `card` writes an audit as Markdown, for the page of a model.
"""

from scotoma.report.audit import audit_report
from scotoma.report.card import audit_card
from scotoma.report.erase import erase_report
from scotoma.report.gallery import AuditPicture, AuditVerdict
from scotoma.report.labelling import labelling_card, labelling_report
from scotoma.report.page import write_report
from scotoma.report.pairs import ErasePictures

__all__ = [
    "AuditPicture",
    "AuditVerdict",
    "ErasePictures",
    "audit_card",
    "audit_report",
    "erase_report",
    "labelling_card",
    "labelling_report",
    "write_report",
]
