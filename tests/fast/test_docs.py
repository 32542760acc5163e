"""What the documents say is what the program says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from kdrv.core.project import (
    DriverSection,
    ExploreSection,
    KernelSection,
    MachineSection,
    ProjectSection,
    ScaffoldSection,
    TestSection,
)
from kdrv.explore.properties import PROPERTIES
from kdrv.sim.faults import FACTS
from kdrv.sim.profiles import schema

DOCS = Path(__file__).parents[2] / "docs"


def test_the_schema_of_fault_profiles_is_the_one_that_is_used() -> None:
    shown = json.loads((DOCS / "faults.schema.json").read_text())
    assert shown == json.loads(json.dumps(schema())), (
        "write it anew: json.dumps(schema(), indent=2, sort_keys=True)"
    )


def test_every_key_of_kdrv_toml_is_explained_with_its_default() -> None:
    text = (DOCS / "kdrv.toml.md").read_text()
    sections = (ProjectSection, ScaffoldSection, DriverSection, KernelSection, MachineSection)
    for section in (*sections, TestSection, ExploreSection):
        for field in msgspec.structs.fields(section):
            said = re.search(rf"`(?:\w+`, `)*{field.name}(?: = ([^`]+))?`", text)
            assert said or field.name == "device", f"{section.__name__}.{field.name}"
            if said and said[1]:
                assert json.loads(said[1]) == json.loads(json.dumps(field.default))


def test_every_fault_is_explained() -> None:
    text = (DOCS / "kdrv.toml.md").read_text()
    for kind, facts in FACTS.items():
        assert f"| `{kind}` | {facts.words}" in text


def test_every_property_is_explained() -> None:
    text = (DOCS / "kdrv.toml.md").read_text()
    for one in PROPERTIES:
        assert f"| `{one.name}` | " in text
        assert one.words in text
