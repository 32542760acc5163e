from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from kdrv.core.context import Context
from kdrv.report.data import to_data
from kdrv.report.diagnosis import show_diagnosis
from kdrv.toolchain import debian, doctor_machine, host
from kdrv.toolchain.debian import DebianToolchain
from kdrv.toolchain.doctor import diagnose
from kdrv.toolchain.doctor_finding import Diagnosis, Finding, Section, State
from kdrv.toolchain.doctor_remedy import HostRemedies, install
from kdrv.toolchain.doctor_tools import TOOLS, Tool, tool_findings
from kdrv.toolchain.host import HostTools
from kdrv.toolchain.requirements import Requirements
from tests.fast.conftest import FakeRunner

RECORDINGS = Path(__file__).parent / "recordings/doctor"
DEBIAN = DebianToolchain(Path("/root-of-debian"), "id", {})
HOST = HostTools("id", {}, "/usr/bin", ())
WANTED = Requirements(
    {"gcc": "8.1.0", "llvm": "17.0.1", "rustc": "1.85.0", "bindgen": "0.71.1"}, rust=True
)


def _said(name: str) -> str:
    return (RECORDINGS / name).read_text()


def _mend(tool: Tool) -> str:
    return f"mend {tool.package}"


def _tools(runner: FakeRunner, said: str, wanted: Requirements = WANTED) -> dict[str, Finding]:
    runner.answers = [("@@ ", said)]
    return {f.subject: f for f in tool_findings(DEBIAN, runner, wanted, _mend)}


def _tool(name: str) -> Tool:
    return next(tool for tool in TOOLS if tool.name == name)


def test_a_whole_toolchain_lacks_nothing(runner: FakeRunner) -> None:
    found = _tools(runner, _said("tools-debian.txt"))
    assert {f.state for f in found.values()} == {State.OK}
    assert len(runner.ran) == 1
    versions = {name: found[name].found for name in ("gcc", "rustc", "bindgen", "libclang")}
    assert versions == {
        "gcc": "14.2.0-19",
        "rustc": "1.85.1",
        "bindgen": "0.71.1",
        "libclang": "19.1.7",
    }
    assert found["QEMU device edu"].found == "present"


def test_a_bare_machine_lacks_much(runner: FakeRunner) -> None:
    found = _tools(runner, _said("tools-host.txt"))
    missing = {name for name, f in found.items() if f.state is State.MISSING}
    assert missing == {
        "flex",
        "bison",
        "cpio",
        "libelf headers",
        "rust-src",
        "bindgen",
        "libclang",
        "qemu-system-x86",
        "iasl",
        "busybox",
    }
    assert found["llvm"] == Finding(
        "llvm",
        "14.0.6",
        "17.0.1 or newer, for --arch arm64, --debug --rust",
        State.WARNING,
        "mend llvm",
    )
    assert found["flex"].remedy == "mend flex"
    assert not any(name.startswith("QEMU device") for name in found)


def test_too_old_is_missing(runner: FakeRunner) -> None:
    said = _said("tools-debian.txt").replace("bindgen 0.71.1", "bindgen 0.60.1")
    finding = _tools(runner, said)["bindgen"]
    assert (finding.found, finding.needed, finding.state) == (
        "0.60.1",
        "0.71.1 or newer",
        State.MISSING,
    )


def test_a_tree_without_rust_does_not_need_it(runner: FakeRunner) -> None:
    found = _tools(runner, _said("tools-host.txt"), Requirements())
    assert found["bindgen"].state is State.WARNING


def test_libclang_of_another_clang(runner: FakeRunner) -> None:
    said = _said("tools-debian.txt").replace(
        "clang version 19.1.7 (3+b1) [-W", "clang version 18.1.8 [-W"
    )
    found = _tools(runner, said)
    assert found["libclang"].state is State.OK
    mismatch = found["libclang against clang"]
    assert (mismatch.found, mismatch.state) == ("18.1.8", State.WARNING)
    assert mismatch.remedy == "mend libclang-19-dev"


def test_qemu_without_edu(runner: FakeRunner) -> None:
    said = _said("tools-debian.txt").replace("\nedu\n", "\n").replace("\nvfio-user-pci\n", "\n")
    found = _tools(runner, said)
    assert found["QEMU device edu"].state is State.MISSING
    assert found["QEMU device vfio-user-pci"].state is State.WARNING


def _remedies(runner: FakeRunner, *programs: str) -> HostRemedies:
    runner.answers = [("apt-cache policy", _said("apt-cache-policy.txt"))]
    remedies = HostRemedies.of_machine(WANTED, runner)
    return HostRemedies(WANTED, remedies.candidates, programs)


def test_apt_is_the_remedy_only_where_it_mends(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    remedies = _remedies(runner)
    assert remedies(_tool("flex")).endswith("apt-get install -y --no-install-recommends flex")
    # apt's candidate there is bindgen 0.60.1.
    assert remedies(_tool("bindgen")) == "kdrv setup --toolchain debian"
    assert _remedies(runner, "cargo")(_tool("bindgen")) == "cargo install --locked bindgen-cli"


def test_rustup_gives_what_it_has(runner: FakeRunner) -> None:
    remedies = _remedies(runner, "rustup")
    assert remedies(_tool("rust-src")) == "rustup component add rust-src"
    assert remedies(_tool("rustc")).startswith("rustup update")


def test_a_machine_without_apt(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.answers = [("apt-cache", (127, "not found"))]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert HostRemedies.of_machine(WANTED, runner).candidates == {}
    assert install("flex") == "install flex with this machine's package manager"


def test_an_ordinary_user_needs_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install("flex").startswith("sudo apt-get install")


@pytest.fixture
def machine(
    ctx: Context, runner: FakeRunner, fake_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A good machine with a Debian root; its own tools are those of a bare Debian 12."""
    (fake_tree / "scripts/min-tool-version.sh").touch()
    (fake_tree / "scripts/rust_is_available.sh").touch()
    monkeypatch.setattr(debian, "find", lambda ctx: DEBIAN)
    monkeypatch.setattr(host, "find", lambda ctx: HOST)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor_machine, "debian_mirror", lambda: "http://mirror.example/debian")
    usage = shutil.disk_usage("/")._replace(free=doctor_machine.FULL_SET)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    runner.answers = [
        ("-- true", ""),
        ("Release.gpg", ""),
        ("min-tool-version.sh", _said("min-tool-version.txt")),
        ("apt-cache", _said("apt-cache-policy.txt")),
        ("rust_is_available.sh", ""),
        ("/root-of-debian / --dev", _said("tools-debian.txt")),
        ("--ro-bind / / --dev", _said("tools-host.txt")),
    ]
    return fake_tree


def _section(diagnosis: Diagnosis, title: str) -> Section:
    return next(section for section in diagnosis.sections if section.title.startswith(title))


def _finding(section: Section, subject: str) -> Finding:
    return next(finding for finding in section.findings if finding.subject == subject)


def test_one_good_provider_is_enough(ctx: Context, machine: Path) -> None:
    diagnosis = diagnose(ctx, machine)
    assert diagnosis.ok
    assert diagnosis.provider == "debian"
    assert _section(diagnosis, "toolchain debian").needed
    assert not _section(diagnosis, "toolchain host").needed
    assert not _section(diagnosis, "toolchain host").complete


def test_the_provider_that_was_asked_for_must_do(ctx: Context, machine: Path) -> None:
    diagnosis = diagnose(ctx, machine, wanted="host")
    assert not diagnosis.ok
    assert diagnosis.provider == ""
    assert [section.title for section in diagnosis.sections] == ["machine", "toolchain host"]


def test_the_machine_s_own_tools_come_first(
    ctx: Context, machine: Path, runner: FakeRunner
) -> None:
    runner.answers[-1] = ("--ro-bind / / --dev", _said("tools-debian.txt"))
    assert diagnose(ctx, machine).provider == "host"


def test_a_root_that_is_not_made_yet_is_no_lack(
    ctx: Context, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "find", lambda ctx: None)
    diagnosis = diagnose(ctx, machine, wanted="debian")
    assert diagnosis.ok
    root = _finding(_section(diagnosis, "toolchain debian"), "root")
    assert (root.state, root.remedy) == (State.WARNING, "kdrv setup --toolchain debian")


def test_no_mirror_matters_while_the_root_is_to_be_made(
    ctx: Context, machine: Path, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = "Err:1 x\nE: Failed to fetch x  404  Not Found\nE: Download Failed\n"
    runner.answers[1] = ("Release.gpg", (100, failed))
    with_root = diagnose(ctx, machine)
    assert with_root.ok
    mirror = _finding(_section(with_root, "toolchain debian"), "mirror")
    assert mirror.state is State.WARNING
    assert mirror.found.endswith("Failed to fetch x  404  Not Found")
    monkeypatch.setattr(debian, "find", lambda ctx: None)
    assert not diagnose(ctx, machine).ok


def test_without_a_sandbox_nothing_else_can_be_said(
    ctx: Context, machine: Path, runner: FakeRunner
) -> None:
    runner.answers[0] = ("-- true", (1, "bwrap: No permissions to create new namespace\n"))
    diagnosis = diagnose(ctx, machine)
    assert not diagnosis.ok
    (section,) = diagnosis.sections
    sandbox = _finding(section, "sandbox")
    assert sandbox.found == "bwrap: No permissions to create new namespace"
    assert sandbox.remedy


def test_no_bubblewrap(ctx: Context, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "bwrap" else f"/bin/{name}")
    (section,) = diagnose(ctx, machine).sections
    assert _finding(section, "sandbox").remedy.endswith(" bubblewrap")


def test_the_tree_has_the_last_word_on_rust(
    ctx: Context, machine: Path, runner: FakeRunner
) -> None:
    said = (
        "***\n*** Rust compiler 'rustc' is too old.\n***   Your version:    1.84.0\n***\n***\n"
        "*** Please see Documentation/rust/quick-start.rst for details\n"
        "*** on how to set up the Rust support.\n***\n"
    )
    runner.answers[4] = ("rust_is_available.sh", (1, said))
    diagnosis = diagnose(ctx, machine)
    assert not diagnosis.ok
    rust = _finding(_section(diagnosis, "toolchain debian"), "Rust")
    assert rust.found == "Rust compiler 'rustc' is too old. Your version:    1.84.0"
    runner.answers[4] = ("rust_is_available.sh", (0, said))
    assert diagnose(ctx, machine).ok


def test_sources_that_are_not_here_yet(ctx: Context, machine: Path) -> None:
    diagnosis = diagnose(ctx, None)
    assert diagnosis.ok
    sources = _finding(_section(diagnosis, "machine"), "kernel sources")
    assert (sources.state, sources.remedy) == (State.WARNING, "kdrv setup")


@pytest.mark.parametrize(
    ("free", "state"),
    [
        (doctor_machine.FULL_SET, State.OK),
        (doctor_machine.FULL_SET - 1, State.WARNING),
        (doctor_machine.SMALLEST_SET - 1, State.MISSING),
    ],
)
def test_disk(free: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    finding = doctor_machine.disk(tmp_path / "not/there/yet")
    assert finding.state is state
    assert str(tmp_path) in finding.found


@dataclass(frozen=True)
class Answer:
    works: bool
    reason: str


def test_kvm_is_believed_only_when_a_guest_booted(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert doctor_machine.kvm(lambda: Answer(True, ""), device).found.startswith("no ")
    device.touch()
    works = doctor_machine.kvm(lambda: Answer(True, "a guest booted"), device)
    assert (works.state, works.found) == (State.OK, "a guest booted")
    hangs = doctor_machine.kvm(lambda: Answer(False, "a guest hangs"), device)
    assert (hangs.state, hangs.found) == (State.WARNING, "a guest hangs")


def test_kvm_is_tried_with_the_qemu_that_will_be_used(
    ctx: Context, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvm").touch()
    kvm = partial(doctor_machine.kvm, device=tmp_path / "kvm")
    monkeypatch.setattr(doctor_machine, "kvm", kvm)
    diagnosis = diagnose(ctx, machine, kvm=lambda tools: Answer(False, f"{tools.name}: hangs"))
    finding = _finding(_section(diagnosis, "machine"), "KVM")
    assert finding.found == "debian: hangs"
    assert diagnosis.ok


def test_an_ordinary_user_needs_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    files = (tmp_path / "subuid", tmp_path / "subgid")
    monkeypatch.setattr(doctor_machine, "SUBID_FILES", files)
    files[0].write_text("other:100000:65536\ndaemon:200000:65536\nbroken\n")
    files[1].write_text("daemon:200000:10\n")
    makers = {finding.subject: finding for finding in doctor_machine.root_makers()}
    assert makers[str(files[0])].state is State.OK
    gids = makers[str(files[1])]
    assert (gids.state, gids.found) == (State.MISSING, "10 ids")
    assert gids.remedy == "sudo usermod --add-subgids 100000-165535 daemon"
    assert makers["newuidmap"].state is State.OK


def test_the_switch_that_forbids_namespaces_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    remedy = doctor_machine.namespace_remedy(tmp_path)
    assert remedy == "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"


def test_the_table(ctx: Context, machine: Path) -> None:
    out = io.StringIO()
    show_diagnosis(diagnose(ctx, machine), Console(file=out, width=120))
    text = out.getvalue()
    assert "toolchain host (not used)" in text
    assert "kdrv can work here, with the toolchain debian" in text
    (line,) = [line for line in text.splitlines() if "apt-get install" in line]
    assert line.startswith("  flex, bison, cpio, libelf headers")
    assert "--no-install-recommends flex bison cpio libelf-dev" in line


def test_the_data(ctx: Context, machine: Path) -> None:
    data = json.loads(json.dumps(to_data(diagnose(ctx, machine))))
    assert data["ok"] is True
    assert data["sections"][0]["findings"][0]["state"] == "ok"
