"""The new diagnostics of a series as SARIF."""

from __future__ import annotations

from kdrv.build.diagnostics import Diagnostic
from kdrv.gate.result import GateResult
from kdrv.report.gate.fit import fit
from kdrv.report.sarif import Properties, sarif_text


def gate_sarif(result: GateResult) -> str:
    """A SARIF file of what is new; each result's properties name patch, commit and check."""
    diagnostics: list[Diagnostic] = []
    properties: list[Properties] = []
    for patch, check in fit(result).all_checks():
        about: dict[str, str | int] = {"check": check.name, "reproducer": check.reproducer}
        if patch:
            about |= {"patch": patch.patch.number, "commit": patch.patch.commit}
        diagnostics += check.diagnostics
        properties += [about] * len(check.diagnostics)
    return sarif_text(diagnostics, properties=properties)
