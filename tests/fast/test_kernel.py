from __future__ import annotations

from pathlib import Path

import pytest

from kdrv.core.context import Context
from kdrv.core.errors import UsageError
from kdrv.core.store import Store
from kdrv.kernel import source
from kdrv.kernel.tree import KernelVersion, open_tree, read_version, require_rust
from kdrv.toolchain.mirror import debian_mirror, sources

from .conftest import FakeRunner


def test_the_version_of_a_tree(fake_tree: Path) -> None:
    tree = open_tree(fake_tree)
    assert tree.version == KernelVersion(7, 3, 4)
    assert str(tree.version) == "7.3.4"
    assert tree.version.series == "7.3"
    assert KernelVersion(6, 12, 9) < KernelVersion(7, 2) < KernelVersion(7, 10)


def test_a_path_that_is_no_kernel_tree(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a Linux kernel source tree") as caught:
        open_tree(tmp_path)
    assert caught.value.remedy
    with pytest.raises(UsageError, match="is not a directory"):
        open_tree(tmp_path / "nowhere")


def test_a_tree_that_was_built_in_place(fake_tree: Path) -> None:
    (fake_tree / ".config").touch()
    with pytest.raises(UsageError, match="holds a build of its own") as caught:
        open_tree(fake_tree)
    assert "mrproper" in caught.value.remedy


def test_a_tree_too_old_for_rust(fake_tree: Path) -> None:
    require_rust(open_tree(fake_tree))
    (fake_tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n")
    with pytest.raises(UsageError, match="6.12.1 .* too old"):
        require_rust(open_tree(fake_tree))


def test_a_makefile_without_a_version(fake_tree: Path) -> None:
    (fake_tree / "Makefile").write_text("all:\n")
    with pytest.raises(UsageError):
        read_version(fake_tree)


MADISON = """\
linux-source-7.3 | 7.3.4-1~bpo13+1 | mirror trixie-backports/main amd64 Packages
linux-source-7.3 | 7.3.2-1~bpo13+1 | mirror trixie-backports/main amd64 Packages
linux-source-7.2 | 7.2.12-1~bpo13+1 | mirror trixie-backports/main amd64 Packages
"""


@pytest.fixture
def archive(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    def unpack(command: object) -> str:
        partial = next(
            word
            for word in command.argv[2].split()
            if word.endswith("partial")  # type: ignore[attr-defined]
        )
        (Path(partial) / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
        return ""

    def download(command: object) -> str:
        (command.cwd / "linux-source-7.3_7.3.4_all.deb").touch()  # type: ignore[attr-defined]
        return ""

    monkeypatch.setattr(source, "debian_mirror", lambda: "http://mirror/debian")
    monkeypatch.setattr(source.shutil, "which", lambda name: f"/usr/bin/{name}")
    runner.answers += [
        (" update", "Hit:1 mirror"),
        ("pkgnames", "linux-source-7.3\nlinux-source-7.2\nlinux-source-6.1-dbg\n"),
        ("madison", MADISON),
        (" download ", download),
        ("dpkg-deb", unpack),
    ]
    return runner


def test_the_default_is_the_newest_package_of_the_proven_series(
    ctx: Context, archive: FakeRunner
) -> None:
    tree = source.obtain(ctx)
    assert tree.origin == "linux-source-7.3 7.3.4-1~bpo13+1"
    assert tree.identity
    assert any("linux-source-7.3=7.3.4-1~bpo13+1" in c.shell() for c in archive.ran)


def test_a_tree_that_is_there_needs_no_network(ctx: Context, archive: FakeRunner) -> None:
    first = source.obtain(ctx, "7.3")
    archive.ran.clear()
    assert source.obtain(ctx, "7.3") == first
    assert archive.ran == []


def test_a_series_nobody_offers_names_those_on_offer(ctx: Context, archive: FakeRunner) -> None:
    with pytest.raises(UsageError, match=r"no package linux-source-5\.9") as caught:
        source.obtain(ctx, "5.9")
    assert "7.2, 7.3" in caught.value.expected
    assert Store(ctx).entries() == []


def test_latest_is_the_highest_series(ctx: Context, archive: FakeRunner) -> None:
    assert "7.3.4" in source.obtain(ctx, "latest").origin


def test_a_mirror_out_of_reach(ctx: Context, archive: FakeRunner) -> None:
    archive.answers.insert(0, (" update", (100, "E: Failed to fetch")))
    with pytest.raises(Exception, match="Debian mirror") as caught:
        source.obtain(ctx)
    assert "--kernel DIR" in caught.value.remedy  # type: ignore[attr-defined]


def test_apt_sources_in_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# comment\ndeb [arch=amd64] http://other.example/apt stable main\n"
    )
    (tmp_path / "sources.list.d/debian.sources").write_text(
        "Types: deb\n# note\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\n"
        "Components: main\n\nTypes: deb deb-src\nURIs: http://mirror.example/debian/\n"
        "Suites: trixie\n trixie-updates\nComponents: main contrib\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\n"
    )
    assert [source.uri for source in sources(tmp_path)] == [
        "http://other.example/apt",
        "http://mirror.example/debian-security",
        "http://mirror.example/debian/",
    ]
    assert debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_no_mirror_at_all(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="names no Debian archive"):
        debian_mirror(tmp_path)
