"""The mutants of the bench are edits of what ``kdrv new`` writes now."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.mutants.mutant import Mutant, mutants


@pytest.mark.parametrize("mutant", tuple(mutants()), ids=lambda m: m.name)
def test_a_mutant_still_fits_its_driver(mutant: Mutant, tmp_path: Path) -> None:
    mutant.write(tmp_path)
