"""What the documents say is what the program says."""

from __future__ import annotations

import json
from pathlib import Path

from kdrv.sim.profiles import schema

DOCS = Path(__file__).parents[2] / "docs"


def test_the_schema_of_fault_profiles_is_the_one_that_is_used() -> None:
    shown = json.loads((DOCS / "faults.schema.json").read_text())
    assert shown == json.loads(json.dumps(schema())), (
        "write it anew: json.dumps(schema(), indent=2, sort_keys=True)"
    )
