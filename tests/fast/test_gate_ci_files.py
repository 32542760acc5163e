"""The files that make a code host, or b4, run the gate."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdrv.core.errors import UsageError
from kdrv.report.gate.init import KINDS, ci_files, write_ci_files


def load(kind: str) -> Any:
    (text,) = ci_files(kind).values()
    return yaml.safe_load(text)


def shell_is_sound(script: str) -> bool:
    return subprocess.run(("bash", "-n"), input=script, text=True, check=False).returncode == 0


def test_the_github_workflow_judges_a_pull_request() -> None:
    workflow = load("github")
    # YAML 1.1, which PyYAML speaks, takes the key "on" for true.
    assert workflow[True] == "pull_request"
    assert workflow["permissions"] == {"contents": "read"}
    job = workflow["jobs"]["gate"]
    for step in job["steps"]:
        assert ("run" in step) != ("uses" in step)
        # What others write reaches the shell as a variable, never as text of the script.
        assert "${{" not in step.get("run", "")
        assert shell_is_sound(step.get("run", ""))
    run = "\n".join(step.get("run", "") for step in job["steps"])
    assert 'pip install "${KDRV' in run
    assert 'kdrv gate "$base..$TIP" --github' in run
    (checkout,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/chec")]
    assert checkout["with"]["fetch-depth"] == 0
    assert checkout["with"]["persist-credentials"] is False


def test_the_gitlab_job_judges_a_merge_request() -> None:
    job = load("gitlab")["kdrv-gate"]
    script = "\n".join([*job["before_script"], *job["script"]])
    assert shell_is_sound(script)
    assert 'pip install "${KDRV' in script
    assert 'kdrv gate "$CI_MERGE_REQUEST_DIFF_BASE_SHA..$tip" --gitlab' in script
    reports = job["artifacts"]["reports"]
    assert reports == {"junit": "kdrv-gate.xml", "codequality": "kdrv-gate-quality.json"}
    assert all(name in script for name in reports.values())
    assert job["artifacts"]["when"] == "always"


def test_b4_reads_its_command_from_the_file(tmp_path: Path) -> None:
    (path,) = write_ci_files(tmp_path, "b4")
    assert path == tmp_path / ".b4-config"
    command = ("git", "config", "--file", str(path), "--get-all", "b4.prep-perpatch-check-cmd")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "kdrv gate - --b4-lines\n"


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_written_once_and_never_over_another(kind: str, tmp_path: Path) -> None:
    written = write_ci_files(tmp_path, kind)
    assert {str(path.relative_to(tmp_path)): path.read_text() for path in written} == ci_files(kind)
    written[0].write_text("mine")
    with pytest.raises(UsageError, match="is there already") as caught:
        write_ci_files(tmp_path, kind)
    assert "mv " in caught.value.remedy
    assert written[0].read_text() == "mine"


def test_a_link_that_leads_nowhere_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / ".b4-config").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        write_ci_files(tmp_path, "b4")
    assert not (tmp_path / "elsewhere").exists()


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="no files for 'jenkins'") as caught:
        ci_files("jenkins")
    assert "github, gitlab, b4" in caught.value.expected
