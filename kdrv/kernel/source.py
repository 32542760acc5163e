"""Kernel sources from Debian's ``linux-source-*`` packages, unpacked into the cache."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, SetupError, UsageError
from kdrv.core.events import Level
from kdrv.core.process import Command
from kdrv.core.space import require_space
from kdrv.core.store import Entry, Store, digest
from kdrv.kernel.tree import KernelTree, open_tree, read_version
from kdrv.toolchain.mirror import debian_mirror

KIND = "source"
PROVEN = ("7.3", "7.2")
"""The series our templates and lanes are proven against, the default first."""
SUITES = (("trixie", "trixie-backports"), ("sid",))
"""Where to look, the second group only for what the first does not have."""
LATEST = "latest"
SPACE_GIB = 2.0


@dataclass(frozen=True)
class Package:
    """A ``linux-source-*`` package an archive offers."""

    series: str
    version: str

    @property
    def name(self) -> str:
        """The package's name."""
        return f"linux-source-{self.series}"


def obtain(ctx: Context, wanted: str | None = None, *, refresh: bool = False) -> KernelTree:
    """The kernel tree a user asked for.

    ``wanted`` is a directory, a series (``7.2``), ``latest``, or ``None`` for the default series.
    A series that was unpacked before is used as it is; ``refresh`` looks for a newer package.
    Raises :class:`UsageError` or :class:`SetupError` with the remedy.
    """
    if wanted is None:
        wanted = PROVEN[0]
    if wanted == LATEST or re.fullmatch(r"\d+\.\d+", wanted):
        tree = None if refresh else cached(ctx, wanted)
        tree = tree or _from_package(ctx, wanted)
    else:
        tree = open_tree(Path(wanted))
    newest = max(tuple(map(int, series.split("."))) for series in PROVEN)
    if tree.version.pair > newest:
        ctx.events.note(
            f"Linux {tree.version} is newer than the series kdrv is proven against"
            f" ({', '.join(PROVEN)}): templates may need changes",
            Level.WARNING,
        )
    return tree


def cached(ctx: Context, wanted: str) -> KernelTree | None:
    """The newest unpacked tree of a series, or ``None``.

    Never for ``latest``: that is a question to the archive.
    """
    entries = [e for e in Store(ctx).entries() if e.kind == KIND and e.facts["series"] == wanted]
    newest = max(entries, key=lambda e: read_version(_sources(e)), default=None)
    return _tree(newest) if newest else None


def unpacked(ctx: Context) -> tuple[KernelTree, ...]:
    """Every tree from a package that is in the cache, the last used first."""
    return tuple(_tree(entry) for entry in Store(ctx).entries() if entry.kind == KIND)


def _from_package(ctx: Context, wanted: str) -> KernelTree:
    require_space(ctx.cache, SPACE_GIB, "a kernel tree")
    archive = _Archive(ctx)
    offered: list[Package] = []
    for suites in SUITES:
        with ctx.events.step(f"looking for linux-source-{wanted} in {', '.join(suites)}"):
            offered += archive.packages(suites)
        chosen = _choose(offered, wanted)
        if chosen:
            break
    else:
        have = ", ".join(sorted({p.series for p in offered}, key=_sort_key)) or "none"
        raise UsageError(
            f"no package linux-source-{wanted} in Debian's archive",
            expected=f"one of the series on offer: {have}; or the path of a kernel tree",
            remedy=f"kdrv build --kernel {LATEST}",
        )

    def make(data: Path) -> Mapping[str, object]:
        with ctx.events.step(f"downloading {chosen.name} {chosen.version} (160 MB)"):
            deb = archive.download(chosen, data)
        with ctx.events.step(f"unpacking {chosen.name} {chosen.version}"):
            _unpack(ctx, deb, data, chosen)
        return {"package": chosen.name, "version": chosen.version, "series": chosen.series}

    key = digest("linux-source-1", chosen.name, chosen.version)
    return _tree(Store(ctx).get(KIND, key, make, waiting=chosen.name))


def _choose(offered: list[Package], wanted: str) -> Package | None:
    if wanted == LATEST:
        return max(offered, key=lambda p: _sort_key(p.series), default=None)
    matching = [p for p in offered if p.series == wanted]
    return matching[0] if matching else None


def _sort_key(series: str) -> tuple[int, ...]:
    return tuple(map(int, series.split(".")))


def _unpack(ctx: Context, deb: Path, data: Path, package: Package) -> None:
    """Unpack the tarball inside the package; only the finished tree gets its final name."""
    inside = f"./usr/src/{package.name}.tar.xz"
    partial = data / "partial"
    partial.mkdir()
    script = (
        f"set -o pipefail; dpkg-deb --fsys-tarfile {shlex.quote(str(deb))}"
        f" | tar -xO {inside} | tar -xJ --strip-components=1 -C {shlex.quote(str(partial))}"
    )
    try:
        ctx.runner.run(Command(("bash", "-c", script), env={"XZ_OPT": "-T0"}), deadline=600)
    except CommandFailed as error:
        raise _archive_error(error, data, f"cannot unpack {package.name}") from error
    deb.unlink()
    partial.rename(data / "linux")


def _sources(entry: Entry) -> Path:
    return entry.data / "linux"


def _tree(entry: Entry) -> KernelTree:
    path = _sources(entry)
    origin = f"{entry.facts['package']} {entry.facts['version']}"
    return KernelTree(path, read_version(path), origin, identity=entry.key)


class _Archive:
    """apt with a state of its own: works for any user and leaves the machine's apt alone."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._seen: dict[tuple[str, ...], list[Package]] = {}
        if not shutil.which("apt-get"):
            raise SetupError(
                "kernel sources come from Debian packages, and this machine has no apt-get",
                expected="a Debian machine, or a kernel tree of your own",
                remedy="git clone a kernel, then: kdrv build --kernel DIR",
            )

    def packages(self, suites: tuple[str, ...]) -> list[Package]:
        """The ``linux-source-*`` packages of ``suites``, newest version first for each series."""
        if suites not in self._seen:
            self._seen[suites] = self._ask(suites)
        return self._seen[suites]

    def _ask(self, suites: tuple[str, ...]) -> list[Package]:
        options = self._options(suites)
        update = Command(("apt-get", *options, "update", "-q"))
        try:
            with Store(self._ctx).lock("apt", suites[0], waiting="the package index"):
                output = self._ctx.runner.run(update, deadline=300).output
                if re.search(r"^(W|E): (Failed to fetch|Some index files failed)", output, re.M):
                    raise CommandFailed(
                        "apt-get update failed",
                        detail=output.splitlines()[-8:],
                        reproducer=update.shell(),
                    )
                listing = self._ctx.runner.run(
                    Command(("apt-cache", *options, "madison", *self._names(options))), deadline=60
                ).output
        except CommandFailed as error:
            raise _archive_error(
                error, self._ctx.cache, "cannot read the package index from the Debian mirror"
            ) from error
        rows = re.findall(r"^ *linux-source-(\d+\.\d+) \| (\S+) \|", listing, re.M)
        return list(dict.fromkeys(Package(series, version) for series, version in rows))

    def download(self, package: Package, into: Path) -> Path:
        """Fetch the package into a directory."""
        suites = next(s for s, offered in self._seen.items() if package in offered)
        argv = ("apt-get", *self._options(suites), "download", f"{package.name}={package.version}")
        try:
            self._ctx.runner.run(Command(argv, cwd=into), deadline=1200)
        except CommandFailed as error:
            raise _archive_error(
                error, into, f"cannot download {package.name} from the Debian mirror"
            ) from error
        return next(into.glob(f"{package.name}_*.deb"))

    def _names(self, options: list[str]) -> list[str]:
        names = self._ctx.runner.run(
            Command(("apt-cache", *options, "pkgnames", "linux-source-")), deadline=60
        ).output.split()
        return [name for name in names if re.fullmatch(r"linux-source-\d+\.\d+", name)]

    def _options(self, suites: tuple[str, ...]) -> list[str]:
        state = self._ctx.cache / "apt" / suites[0]
        for name in ("lists/partial", "cache/archives/partial", "etc"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        mirror = self._ctx.mirror or debian_mirror()
        lines = [f"deb {mirror} {suite} main\n" for suite in suites]
        (state / "etc/sources.list").write_text("".join(lines))
        settings = {
            "Dir::State": str(state),
            "Dir::State::lists": str(state / "lists"),
            "Dir::State::status": str(state / "status"),
            "Dir::Cache": str(state / "cache"),
            "Dir::Etc::sourcelist": str(state / "etc/sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            # apt drops to this user to download, who cannot write into a cache of ours.
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        if keyring.exists():
            settings["Dir::Etc::trusted"] = str(keyring)
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _archive_error(error: CommandFailed, place: Path, what: str) -> SetupError:
    if any("No space left" in line for line in error.detail):
        return SetupError(
            f"{what}: the disk of {place} is full",
            expected="2 GB free for a kernel tree",
            remedy="kdrv cache prune, or set XDG_CACHE_HOME to a larger disk",
            reproducer=error.reproducer,
        )
    return SetupError(
        what,
        expected="the Debian mirror of this machine's apt configuration, over the network",
        remedy="check with: apt-get update; or give a kernel tree of your own: --kernel DIR",
        detail=error.detail,
        reproducer=error.reproducer,
    )
