"""Patch series on a real kernel's tree, made without a checkout.

The base is the package's tree as one commit; patches edit blobs and write trees (git plumbing), so
that forty of them cost a second.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdrv.core.context import Context
from kdrv.core.process import Command
from kdrv.core.store import Store, digest
from kdrv.kernel.tree import KernelTree

WHO = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}
Edit = Callable[[str], str] | str | None
"""A file's new text, or what makes it from the old; ``None`` deletes the file."""


def base_repository(ctx: Context, tree: KernelTree) -> Path:
    """A bare repository with the tree as branch ``base``, in the cache."""

    def make(data: Path) -> Mapping[str, Any]:
        git = ("git", f"--git-dir={data / 'linux.git'}", f"--work-tree={tree.path}")
        # The package's own .gitignore would hide half of it.
        steps = (
            ("git", "init", "-q", "--bare", "-b", "base", str(data / "linux.git")),
            (*git, "-c", "core.fsync=none", "add", "-f", "."),
            (*git, "commit", "-q", "-m", f"Linux {tree.version}"),
        )
        with ctx.events.step("making a git tree of the kernel"):
            for argv in steps:
                ctx.runner.run(Command(argv, env=WHO), deadline=900)
        return {"tree": tree.origin}

    key = digest("test-tree-1", tree.identity)
    return Store(ctx).get("test-tree", key, make).data / "linux.git"


@dataclass(frozen=True)
class Maker:
    """Makes commits in the base's repository, whose lanes then stay warm from run to run."""

    path: Path
    index: Path

    def alone(self) -> FileLock:
        """While it is held no other test's maker writes to the repository."""
        return FileLock(self.path.with_suffix(".lock"), timeout=600)

    def git(self, *words: str, text: str | None = None) -> str:
        env = {**os.environ, **WHO, "GIT_INDEX_FILE": str(self.index)}
        argv = ["git", f"--git-dir={self.path}", *words]
        with self.alone():
            done = subprocess.run(argv, env=env, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def read(self, commit: str, path: str) -> str:
        return self.git("cat-file", "blob", f"{commit}:{path}") + "\n"

    def commit(self, parent: str, subject: str, edits: Mapping[str, Edit], body: str = "") -> str:
        """One patch; its message is complete, unless ``body`` is given."""
        self.git("read-tree", parent)
        for path, edit in edits.items():
            if edit is None:
                self.git("update-index", "--force-remove", path)
                continue
            new = edit if isinstance(edit, str) else edit(self.read(parent, path))
            blob = self.git("hash-object", "-w", "--stdin", text=new)
            self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        message = body or f"{subject}\n\nA patch for a test.\n\nSigned-off-by: Ada <{ADA}>\n"
        return self.git("commit-tree", self.git("write-tree"), "-p", parent, text=message)

    def series(self, name: str, *patches: tuple[str, Mapping[str, Edit]]) -> str:
        """Patches on the base, as a branch; the range that names them."""
        tip = self.git("rev-parse", "base")
        for subject, edits in patches:
            tip = self.commit(tip, subject, edits)
        self.git("update-ref", f"refs/heads/{name}", tip)
        return f"base..{name}"


ADA = "ada@example.org"


def swap(old: str, new: str) -> Callable[[str], str]:
    """An edit that replaces what must be there."""

    def edit(text: str) -> str:
        assert old in text, f"{old!r} is not there"
        return text.replace(old, new, 1)

    return edit


Patch = tuple[str, Mapping[str, Edit]]

HARMLESS: Patch = (
    "char: mem: Say what chr_dev_init() registers",
    {
        "drivers/char/mem.c": swap(
            "static int __init chr_dev_init(void)",
            "/* Registers /dev/mem and its kin. */\nstatic int __init chr_dev_init(void)",
        )
    },
)
ELSEWHERE: Patch = (
    "e1000: Reword the description",
    {
        "drivers/net/ethernet/intel/e1000/e1000_main.c": swap(
            'MODULE_DESCRIPTION("', 'MODULE_DESCRIPTION("The '
        )
    },
)
HEADER: Patch = (
    "misc: Let misc_deregister() wait for open files",
    {
        "include/linux/miscdevice.h": swap(
            "misc_deregister(struct miscdevice *misc);",
            "misc_deregister(struct miscdevice *misc, bool sync);",
        ),
        "drivers/char/misc.c": swap(
            "void misc_deregister(struct miscdevice *misc)",
            "void misc_deregister(struct miscdevice *misc, bool sync)",
        ),
    },
)
MENDED: Patch = (
    "rust: miscdevice: Follow the change of misc_deregister()",
    {
        "rust/kernel/miscdevice.rs": swap(
            "bindings::misc_deregister(self.inner.get())",
            "bindings::misc_deregister(self.inner.get(), false)",
        )
    },
)

BOARD = "lib/argv_split.c"
"""A small file that both lanes build and nothing else depends on."""

UNUSED = "\nstatic int kdrv_first;\n"
WARNS: Patch = ("lib: argv_split: Leave something unused", {BOARD: lambda text: text + UNUSED})
WARNS_OTHERWISE: Patch = (
    "lib: argv_split: Leave something else unused",
    {BOARD: swap(UNUSED, "\nstatic int kdrv_second;\n")},
)
MOVED: Patch = (
    "lib: argv_split: Move what is unused",
    {BOARD: swap("#include", "/* Some\n * more\n * lines.\n */\n#include")},
)
ONLY_C: Patch = (
    "lib: argv_split: Need Rust",
    {BOARD: lambda text: text + "\n#ifndef CONFIG_RUST\n#error Rust is needed\n#endif\n"},
)
NOT_ONLY_C: Patch = (
    "lib: argv_split: Need no Rust",
    {BOARD: swap("\n#ifndef CONFIG_RUST\n#error Rust is needed\n#endif\n", "")},
)
HELPER = """
__rust_helper int rust_helper_signal_pending(struct task_struct *t)
{
	return signal_pending(t);
}
"""
NO_HELPER: Patch = (
    "rust: helpers: Remove signal_pending()",
    {"rust/helpers/signal.c": swap(HELPER, "")},
)
HELPER_AGAIN: Patch = (
    "rust: helpers: Bring signal_pending() back",
    {"rust/helpers/signal.c": lambda text: text.rstrip("\n") + "\n" + HELPER},
)
NO_RUST: Patch = (
    "init: Refuse Rust with BUG",
    {
        "init/Kconfig": swap(
            "\tdepends on RUST_IS_AVAILABLE\n",
            "\tdepends on RUST_IS_AVAILABLE\n\tdepends on !BUG\n",
        )
    },
)
RUST_AGAIN: Patch = (
    "init: Allow Rust with BUG",
    {"init/Kconfig": swap("\tdepends on !BUG\n", "")},
)
DRIVER_SOURCE = """// SPDX-License-Identifier: GPL-2.0

//! A driver that greets.

use kernel::{greeting, prelude::*};

module! {
    type: Greeter,
    name: "rust_greeter",
    authors: ["Ada"],
    description: "A driver that greets",
    license: "GPL",
}

struct Greeter;

impl kernel::Module for Greeter {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        pr_info!("{}\\n", greeting::WORDS);
        Ok(Greeter)
    }
}
"""
NEW_DRIVER: tuple[Patch, ...] = (
    (
        "rust: greeting: Add words to greet with",
        {
            "rust/kernel/greeting.rs": "// SPDX-License-Identifier: GPL-2.0\n\n"
            '//! Words to greet with.\n\n/// What to say.\npub const WORDS: &str = "Hello";\n',
            "rust/kernel/lib.rs": swap("pub mod gpu;\n", "pub mod gpu;\npub mod greeting;\n"),
        },
    ),
    (
        "samples: rust: Add a driver that greets",
        {
            "samples/rust/rust_greeter.rs": DRIVER_SOURCE,
            "samples/rust/Makefile": swap(
                "obj-$(CONFIG_SAMPLE_RUST_MINIMAL)",
                "obj-$(CONFIG_SAMPLE_RUST_GREETER)\t\t+= rust_greeter.o\n"
                "obj-$(CONFIG_SAMPLE_RUST_MINIMAL)",
            ),
            "samples/rust/Kconfig": swap(
                "config SAMPLE_RUST_CONFIGFS\n",
                'config SAMPLE_RUST_GREETER\n\ttristate "Greeter"\n\tdefault m\n\thelp\n'
                "\t  This option builds the Rust driver that greets whoever loads it.\n\n"
                "\t  To compile this as a module, choose M here:\n"
                "\t  the module will be called rust_greeter.\n\n\t  If unsure, say N.\n\n"
                "config SAMPLE_RUST_CONFIGFS\n",
            ),
        },
    ),
)
NO_BOOT: Patch = (
    "lib: argv_split: Panic with Rust",
    {
        BOARD: lambda text: (
            f"""{text}
#include <linux/init.h>
#include <linux/panic.h>

static int __init no_rust(void)
{{
	if (IS_ENABLED(CONFIG_RUST))
		panic("no Rust today");
	return 0;
}}
late_initcall(no_rust);
"""
        )
    },
)
HEADER_NEVER_MENDED: Patch = (
    "misc: Let misc_deregister() be forced",
    {
        "include/linux/miscdevice.h": swap("bool sync);", "bool sync, bool force);"),
        "drivers/char/misc.c": swap(
            "misc_deregister(struct miscdevice *misc, bool sync)",
            "misc_deregister(struct miscdevice *misc, bool sync, bool force)",
        ),
    },
)
GALLERY: tuple[Patch, ...] = (
    HARMLESS,
    HEADER,
    ELSEWHERE,
    MENDED,
    WARNS,
    WARNS_OTHERWISE,
    MOVED,
    ONLY_C,
    NOT_ONLY_C,
    NO_HELPER,
    HELPER_AGAIN,
    NO_RUST,
    RUST_AGAIN,
    *NEW_DRIVER,
    HEADER_NEVER_MENDED,
)
