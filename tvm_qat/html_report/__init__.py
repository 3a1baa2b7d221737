"""`verify --report`: what a verification found, as one HTML file that needs no network.

    verification, profile  ->  document (plain data)  ->  page

The page's markup, style and scripts lie in `page/`; data enters it as JSON and as nothing else.
"""

from tvm_qat.html_report.report import write_report

__all__ = ["write_report"]
