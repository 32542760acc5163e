from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.core.errors import UsageError
from kdrv.core.project import Device, find_project, load_project

WHOLE = """
[project]
name = "my-widget"
kdrv = "0.1.0"
kernel = "7.3"
[driver]
module = "my_widget"
path = "."
[machine]
memory = 128
[[machine.device]]
kind = "edu"
addr = "0x4"
"""


def _write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "kdrv.toml").write_text(text)
    return tmp_path


def test_a_whole_project(tmp_path: Path) -> None:
    project = load_project(_write(tmp_path, WHOLE))
    assert project.module_dir == tmp_path
    assert project.machine.memory == 128
    assert project.machine.devices() == (Device("edu", {"addr": "0x4"}),)
    assert project.test.paths == ("tests",)


def test_the_nearest_project_above(tmp_path: Path) -> None:
    (tmp_path / "tests/deep").mkdir(parents=True)
    _write(tmp_path, WHOLE)
    assert find_project(tmp_path / "tests/deep") == tmp_path


def test_a_policy_alone_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "kdrv.toml").write_text("[policy]\npreset = 'driver'\n")
    inner = tmp_path / "driver"
    inner.mkdir()
    assert find_project(inner) is None
    (inner / "kdrv.toml").write_text("[policy\n")
    assert find_project(inner) == inner


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project\n", "no valid TOML"),
        (WHOLE.replace("memory = 128", 'memory = "lots"'), r"\$\.machine\.memory"),
        (WHOLE + "[typo]\n", "typo"),
        (WHOLE.replace('path = "."', ""), "either path or symbol"),
        (WHOLE.replace('path = "."', 'path = "."\nsymbol = "X"'), "either path or symbol"),
        (WHOLE.replace('kind = "edu"', ""), "has no kind"),
        (WHOLE.replace('path = "."', 'path = "."\nlanguage = "zig"'), "zig"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_project(_write(tmp_path, text))


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_project(tmp_path)
