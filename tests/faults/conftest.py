"""Counts what this folder tried: inputs (`test_inputs_*.py`) and faults of the machine (`test_faults_*.py`)."""

from __future__ import annotations

import pytest

from unit.conftest import prepared, train

__all__ = ["prepared", "train"]  # fixtures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many inputs and faults were tried, and how many held."""
    for kind in ("inputs", "faults"):
        outcomes = {
            outcome: sum(f"faults/test_{kind}_" in report.nodeid for report in terminalreporter.stats.get(outcome, []))
            for outcome in ("passed", "failed", "error")
        }
        if sum(outcomes.values()):
            bad = outcomes["failed"] + outcomes["error"]
            terminalreporter.write_line(f"{kind}: {outcomes['passed'] + bad} tried, {outcomes['passed']} held, {bad} did not")
