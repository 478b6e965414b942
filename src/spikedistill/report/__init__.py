"""Reads run folders and shows them: tables for the terminal, Markdown and HTML, and one self-contained page."""

from spikedistill.report.layouts import print_table, to_html, to_markdown
from spikedistill.report.page import summary_sentence, write_report, write_run_report
from spikedistill.report.runs import Run, find_runs, read_run
from spikedistill.report.table import Table, table

__all__ = [
    "Run",
    "Table",
    "find_runs",
    "print_table",
    "read_run",
    "summary_sentence",
    "table",
    "to_html",
    "to_markdown",
    "write_report",
    "write_run_report",
]
