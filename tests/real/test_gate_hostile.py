"""Patches that mean harm: each gets a verdict, and nothing is harmed."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from kdrv.build.api import LaneBuild, Workbench
from kdrv.core.context import Context
from tests.real import kernel_series as made
from tests.real.conftest import Kdrv, Said

pytestmark = pytest.mark.real

MAKEFILE = "lib/Makefile"
POLICY = """[policy.limits]
processes = 500
memory = 6000
disk = 1500
minutes = 15
"""


def runs(script: str) -> made.Edit:
    """A makefile whose last line runs a script when make reads it."""

    def edit(text: str) -> str:
        kept = [line for line in text.splitlines() if not line.startswith("KDRV := ")]
        return "\n".join([*kept, f"KDRV := $(shell {script})", ""])

    return edit


@pytest.fixture(scope="module")
def listening() -> tuple[int, list[str]]:
    """A port of this machine's that writes down who connects."""
    server = socket.create_server(("127.0.0.1", 0))
    seen: list[str] = []

    def serve() -> None:
        while True:
            connection, address = server.accept()
            seen.append(str(address))
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], seen


@pytest.fixture(scope="module")
def treasure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user's that patches would like to read and write."""
    path = Path.home() / f".kdrv-test-{tmp_path_factory.getbasetemp().name}"
    path.write_text("treasure\n")
    return path


@pytest.fixture(scope="module")
def judged(
    kdrv: Kdrv,
    ctx: Context,
    bench: Workbench,
    rust_lane: LaneBuild,
    listening: tuple[int, list[str]],
    treasure: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Said, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    maker = made.Maker(made.base_repository(ctx, bench.tree), folder / "index")
    policy = folder / "kdrv.toml"
    policy.write_text(POLICY)
    connect = f"exec 3<>/dev/tcp/127.0.0.1/{listening[0]}"
    write = f"echo stolen > {treasure}; echo stolen > /run/kdrv/src/stolen; cat {treasure}"
    source = maker.series(
        "hostile",
        ("lib: Write outside", {MAKEFILE: runs(f"({write}) 2>&1")}),
        ("lib: Open a socket", {MAKEFILE: runs(f"bash -c '{connect}' 2>&1; echo tried")}),
        ("lib: Print escapes \x1b]0;owned\x07", {
            MAKEFILE: runs("printf 'lib/x.c:1:1: warning: \\033]0;owned\\007 \\033[2J here' >&2"),
        }),
        ("lib: Fork for ever", {
            MAKEFILE: runs("bash -c 'f() { f | f & }; f; sleep 600' >/dev/null 2>&1"),
        }),
        ("lib: Fill the disk", {
            MAKEFILE: runs("i=0; while dd if=/dev/zero of=/run/kdrv/out/fill-$$i bs=1M count=500"
                           " 2>/dev/null; do i=$$((i+1)); done"),
        }),
        ("lib: Do no harm", {MAKEFILE: lambda text: "\n".join(
            line for line in text.splitlines() if not line.startswith("KDRV := ")) + "\n"}),
    )  # fmt: skip
    words = ("gate", "--json", "--repo", maker.path, "--boot", "never", "--policy", policy)
    said = kdrv(*words, source)
    assert said.out, said.err
    return said, said.data


def builds(judged: tuple[Said, dict[str, Any]], patch: int) -> list[dict[str, Any]]:
    checks = judged[1]["patches"][patch - 1]["checks"]
    return [one for one in checks if one["name"].startswith("build ")]


def test_writing_outside_does_nothing(judged: tuple[Said, dict[str, Any]], treasure: Path) -> None:
    assert [one["outcome"] for one in builds(judged, 1)] == ["pass", "pass"]
    assert treasure.read_text() == "treasure\n"
    treasure.unlink()


def test_no_socket_reaches_this_machine(
    judged: tuple[Said, dict[str, Any]], listening: tuple[int, list[str]]
) -> None:
    assert [one["outcome"] for one in builds(judged, 2)] == ["pass", "pass"]
    assert listening[1] == []


def test_no_escape_reaches_the_terminal(judged: tuple[Said, dict[str, Any]]) -> None:
    said, _ = judged
    assert "\x1b" not in said.err
    assert "\x07" not in said.err


@pytest.mark.parametrize(("patch", "words"), [(4, "processes"), (5, "wrote more than")])
def test_too_much_of_anything_is_a_verdict(
    judged: tuple[Said, dict[str, Any]], patch: int, words: str
) -> None:
    for one in builds(judged, patch):
        assert one["outcome"] == "fail"
        assert words in one["summary"] + str(one["diagnostics"])


def test_what_filled_the_disk_is_gone(judged: tuple[Said, dict[str, Any]], ctx: Context) -> None:
    assert list((ctx.cache / "gate-lane").glob("*/data/out/fill-*")) == []


def test_the_next_good_patch_is_good(judged: tuple[Said, dict[str, Any]]) -> None:
    assert [one["outcome"] for one in builds(judged, 6)] == ["pass", "pass"]


def test_a_link_out_of_the_tree_is_refused(kdrv: Kdrv, maker: made.Maker) -> None:
    base = maker.git("rev-parse", "base")
    maker.git("read-tree", base)
    blob = maker.git("hash-object", "-w", "--stdin", text="../../../../etc/passwd")
    maker.git("update-index", "--add", "--cacheinfo", f"120000,{blob},Documentation/link.txt")
    tip = maker.git("commit-tree", maker.git("write-tree"), "-p", base, text="docs: Link\n")
    maker.git("update-ref", "refs/heads/link", tip)
    said = kdrv("gate", "--json", "--repo", maker.path, "--boot", "never", "base..link")
    assert said.status == 1
    checks = {one["name"]: one for one in said.data["patches"][0]["checks"]}
    assert checks["links"]["outcome"] == "fail"
    assert "Documentation/link.txt" in str(checks["links"])
    assert "root:" not in said.out


def test_a_tree_that_cannot_be_configured_is_a_verdict(kdrv: Kdrv, maker: made.Maker) -> None:
    nonsense = "\nconfig KDRV_BROKEN\n\tnonsense\n"
    maker.series(
        "misconfigured",
        ("lib: Break Kconfig", {"lib/Kconfig": lambda text: text + nonsense}),
        ("lib: Mend Kconfig", {"lib/Kconfig": made.swap(nonsense, "")}),
    )
    mended = maker.git("rev-parse", "misconfigured")
    maker.git("read-tree", mended)
    endless = maker.git("hash-object", "-w", "--stdin", text="/dev/zero")
    maker.git("update-index", "--cacheinfo", f"120000,{endless},Makefile")
    tree = maker.git("write-tree")
    tip = maker.git("commit-tree", tree, "-p", mended, text="Makefile: Never end\n")
    maker.git("update-ref", "refs/heads/endless", tip)
    said = kdrv("gate", "--json", "--repo", maker.path, "--boot", "never", "base..endless")
    assert said.status == 1, said.err
    outcomes = [
        {one["outcome"] for one in patch["checks"] if one["name"].startswith("build ")}
        for patch in said.data["patches"]
    ]
    assert outcomes == [{"fail"}, {"pass"}, {"fail"}]
    assert "cannot be configured" in str(said.data["patches"][0])
    assert "no Makefile of a kernel" in str(said.data["patches"][2])
