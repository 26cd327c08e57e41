"""The numbers of the soundness run, at its end. Under xdist they are in the ``soundness`` property of the reports."""

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        dict(value)
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if report.when == "call"
        for name, value in report.user_properties
        if name == "soundness"
    ]
    if rows:
        total: Counter[str] = Counter()
        for row in rows:
            total.update(row)
        line = ", ".join(f"{count} {what}" for what, count in total.items())
        terminalreporter.write_line(f"soundness on the wire, {len(rows)} tools: {line}")
