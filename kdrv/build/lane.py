"""A lane: one configuration of a kernel that is to stay green."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

from kdrv.core.errors import UsageError
from kdrv.core.store import digest
from kdrv.kernel.arch import TRAITS, Arch
from kdrv.kernel.kconfig import Setting, merge, parse_settings
from kdrv.toolchain.base import OUTPUT

TINY = "tiny"
DEFCONFIG = "defconfig"


class Language(StrEnum):
    """Whether the lane has CONFIG_RUST."""

    C = "c"
    RUST = "rust"


@dataclass(frozen=True)
class Fragment:
    """Lines of a .config, and where they come from."""

    name: str
    text: str

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings by symbol. Raises :class:`UsageError` for a line that is none."""
        return parse_settings(self.text, Path(self.name))


@dataclass(frozen=True)
class Lane:
    """Everything about a kernel's configuration that does not depend on the tree.

    ``base`` is ``tiny`` (kdrv's own small kernel for driver work), ``defconfig``, or a .config as
    a :class:`Fragment`. ``fragments`` are put on top, later ones winning.
    """

    language: Language
    arch: Arch
    debug: bool
    base: str | Fragment
    fragments: tuple[Fragment, ...]

    @property
    def name(self) -> str:
        """``c``, ``rust``, ``rust-debug``, ``c-arm64``: unique among lanes of one command."""
        parts = [self.language.value]
        if self.arch is not Arch.X86_64:
            parts.append(self.arch.value)
        if self.debug:
            parts.append("debug")
        return "-".join(parts)

    @property
    def llvm(self) -> bool:
        """Whether the lane is built with LLVM=1.

        The debug lane is: with Rust, KASAN needs clang (init/Kconfig: config RUST).
        """
        return self.debug or TRAITS[self.arch].llvm

    @property
    def requested(self) -> str:
        """All fragments as one .config text, later lines winning."""
        return "\n".join(f"# from {f.name}\n{f.text.rstrip()}" for f in self.fragments) + "\n"

    @property
    def settings(self) -> dict[str, Setting]:
        """All fragments' settings by symbol, the winning ones.

        Raises :class:`UsageError` for a line that is no setting, with its file and number.
        """
        return merge(*(fragment.settings for fragment in self.fragments))

    @property
    def identity(self) -> str:
        """A digest: lanes with the same one make the same kernel of a tree, in whatever words."""
        base = self.base if isinstance(self.base, str) else self.base.text
        wanted = sorted((one.symbol, one.value) for one in self.settings.values())
        return digest(self.make_variables(), base, wanted, *self.headers)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Names and texts of kdrv's own headers that the lane's build directory must have."""
        names = [name for _, name in TRAITS[self.arch].debug_includes if self.debug]
        return tuple((name, _shipped(name)) for name in names)

    def make_variables(self) -> tuple[str, ...]:
        """What the lane adds to every make command line."""
        traits = TRAITS[self.arch]
        variables = [f"ARCH={self.arch}", *traits.variables]
        if self.debug:
            variables += traits.debug_variables
            variables += (
                f"CFLAGS_{target}=-include {OUTPUT}/{header}"
                for target, header in traits.debug_includes
            )
        if self.llvm:
            variables.append("LLVM=1")
        return tuple(variables)


def make_lane(
    language: Language,
    arch: Arch = Arch.X86_64,
    *,
    debug: bool = False,
    base: str = TINY,
    extra: tuple[Fragment, ...] = (),
) -> Lane:
    """A lane from what a user types.

    ``base`` is ``tiny``, ``defconfig`` or the path of a .config. Raises :class:`UsageError` when
    that file cannot be read.
    """
    fragments: list[Fragment] = []
    if base == TINY:
        fragments += [shipped(name) for name in TRAITS[arch].fragments]
        if language is Language.RUST:
            fragments.append(shipped("rust"))
    fragments.append(
        Fragment("the lane", f"CONFIG_RUST={'y' if language is Language.RUST else 'n'}")
    )
    if debug:
        names = [*TRAITS[arch].debug_fragments]
        if language is Language.RUST:
            names.append("debug-rust")
        fragments += [shipped(name) for name in names]
    ground = base if base in (TINY, DEFCONFIG) else read_fragment(Path(base))
    return Lane(language, arch, debug, ground, (*fragments, *extra))


def shipped(name: str) -> Fragment:
    """A fragment of kdrv's own, from ``kdrv/build/fragments``."""
    return Fragment(f"{name}.config", _shipped(f"{name}.config"))


def _shipped(name: str) -> str:
    return resources.files("kdrv.build").joinpath("fragments", name).read_text()


def read_fragment(path: Path) -> Fragment:
    """A user's .config or fragment. Raises :class:`UsageError` when it cannot be read."""
    try:
        return Fragment(str(path), path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"cannot read the configuration {path}: {reason}",
            expected=f"{TINY}, {DEFCONFIG}, or a readable .config file",
            remedy="kdrv build --config tiny",
        ) from error
