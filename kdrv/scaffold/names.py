"""The names of a new driver and of its author, checked before anything is written."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from kdrv.core.errors import UsageError

MAX_NAME = 55
"""``MODULE_NAME_LEN`` less its NUL (include/linux/moduleparam.h, 64-bit)."""
TWIN_SUFFIX = "_c"
"""What the module of a twin in C is called beyond the driver's own name."""
MAX_TYPE = 32
"""Longer type names would make lines of the templates longer than rustfmt allows."""

KEYWORDS = frozenset(
    # The Rust Reference, "Keywords": strict, reserved and weak.
    "as async await break const continue crate dyn else enum extern false fn for if impl in let "
    "loop match mod move mut pub ref return self static struct super trait true type unsafe use "
    "where while abstract become box do final gen macro override priv try typeof unsized virtual "
    "yield union "
    # C11 (gnu11 is the kernel's language), 6.4.1, in lower case.
    "auto case char default double float goto inline int long register restrict short signed "
    "sizeof switch typedef unsigned void volatile asm".split()
)
CRATES = frozenset(
    # Crates that every Rust module is compiled with or linked to (rust/Makefile).
    "alloc bindings build_error compiler_builtins core exports ffi helpers kernel macros pin_init "
    "pin_init_internal proc_macro proc_macro2 quote std syn test uapi zerocopy zerocopy_derive "
    # Names that kbuild gives a meaning in a module's directory.
    "built_in modules vmlinux".split()
)


BUILT_IN = frozenset(
    # Parts of most kernels with parameters, thus in /sys/module: a module of such a name is
    # refused as loaded already (kernel/module/sysfs.c).
    "acpi battery button configfs cpufreq cpuidle firmware_class haltpoll hid i8042 keyboard kunit "
    "main module nmi_backtrace pci pcie_aspm pciehp pnp printk processor psmouse random rcupdate "
    "rcutree slab_common spurious srcutree sysrq thermal tree tty update usbcore virtio_pci vt "
    "workqueue xz_dec".split()
)


@dataclass(frozen=True)
class Names:
    """A driver's names, all made from the one that was typed.

    ``module`` is the file, crate and module name, ``type`` the stem of Rust type names, ``symbol``
    the Kconfig symbol without ``CONFIG_``.
    """

    name: str
    module: str
    type: str
    symbol: str

    @property
    def twin(self) -> Names:
        """The names of the twin in C. Raises :class:`UsageError` when they would be too long."""
        if len(self.module) + len(TWIN_SUFFIX) > MAX_NAME:
            raise UsageError(
                f"{self.name!r} is too long for a driver with a twin in C",
                expected=f"at most {MAX_NAME - len(TWIN_SUFFIX)} characters",
                remedy=f"kdrv new {self.name[: MAX_NAME - len(TWIN_SUFFIX)].rstrip('-_')}",
            )
        return Names(
            self.name + TWIN_SUFFIX,
            self.module + TWIN_SUFFIX,
            self.type,
            self.symbol + TWIN_SUFFIX.upper(),
        )

    @classmethod
    def parse(cls, name: str) -> Names:
        """Check a name. Raises :class:`UsageError` when no kernel module can be called so."""
        expected = (
            f"at most {MAX_NAME} characters: small letters and digits, parted by - or _, "
            "a letter first"
        )
        suggestion = _suggest(name)
        if len(name) > MAX_NAME or not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name):
            raise UsageError(
                f"{name!r} cannot be the name of a driver",
                expected=expected,
                remedy=f"kdrv new {suggestion}",
            )
        module = name.replace("-", "_")
        for words, what in (
            (KEYWORDS, "a keyword of Rust or C"),
            (CRATES, "a name of the kernel's build"),
            (BUILT_IN, "a part of the kernel"),
        ):
            if module in words:
                raise UsageError(
                    f"{name!r} cannot be the name of a driver: it is {what}",
                    expected=f"a name that is not {what}",
                    remedy=f"kdrv new {name}-driver",
                )
        camel = "".join(part.capitalize() for part in module.split("_"))
        return cls(name, module, camel[:MAX_TYPE], module.upper())

    def variables(self) -> dict[str, str]:
        """The names as templates know them."""
        return {
            "name": self.name,
            "module": self.module,
            "Type": self.type,
            "SYMBOL": self.symbol,
        }


def _suggest(name: str) -> str:
    """The nearest good name."""
    folded = _fold(name).lower()
    stem = "-".join(re.findall(r"[a-z0-9]+", folded)).lstrip("-0123456789")
    return stem[:MAX_NAME].rstrip("-") or "my-driver"


def _fold(text: str) -> str:
    """``text`` without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


@dataclass(frozen=True)
class Author:
    """Who the driver is by. Made with :meth:`parse`."""

    name: str
    email: str

    @classmethod
    def parse(cls, name: str, email: str) -> Author:
        """Check an author. Raises :class:`UsageError` for what would break the sources."""
        name, email = name.strip(), email.strip()
        if not name or not name.isprintable() or re.search(r'[<>"\\]', name):
            raise UsageError(
                f"{name!r} cannot be the name of an author",
                expected='a name in printable characters other than < > " and \\',
                remedy='kdrv new ... --author "First Last"',
            )
        if not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9.-]+", email):
            raise UsageError(
                f"{email!r} is no e-mail address",
                expected="an address in ASCII such as you@example.org",
                remedy="kdrv new ... --email you@example.org",
            )
        return cls(name, email)

    @property
    def for_module(self) -> str:
        """Name and address for ``module!``, which takes ASCII only (rust/macros/module.rs).

        Accents are left out; a name in another script leaves only the address.
        """
        folded = _fold(self.name)
        return f"{folded} <{self.email}>" if folded.isascii() else self.email


PLACEHOLDER = Author("Your Name", "you@example.org")
"""For when nobody can be asked and git knows no name."""
