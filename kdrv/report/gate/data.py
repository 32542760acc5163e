"""A judged series for programs."""

from __future__ import annotations

from typing import Any

from kdrv.gate.result import GateResult
from kdrv.report.data import to_data
from kdrv.report.gate.fit import fit
from kdrv.report.gate.words import exit_code


def gate_data(result: GateResult) -> dict[str, Any]:
    """The result as plain data, with the outcomes of the whole and of each patch, and the exit
    code. Its texts are fit to be printed."""
    result = fit(result)
    data: dict[str, Any] = to_data(result)
    data["outcome"] = result.outcome.value
    data["exit_code"] = exit_code(result)
    for told, patch in zip(data["patches"], result.patches, strict=True):
        told["outcome"] = patch.outcome.value
    return data
