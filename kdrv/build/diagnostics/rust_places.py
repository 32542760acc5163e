"""Which Rust function a build error without a place comes from.

``build_assert!`` and ``build_error!`` work by a call to ``rust_build_error`` that the optimiser
must remove (rust/kernel/build_assert.rs). Where it does not, modpost says that the symbol is
undefined, in which module, and nothing more. The call is still in the object: a relocation in the
function's code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kdrv.build.diagnostics.record import Diagnostic
from kdrv.core.context import Context
from kdrv.core.errors import KdrvError
from kdrv.core.process import Command
from kdrv.toolchain.base import Toolchain

BUILD_ERROR = "rust_build_error"
_EXPLAINED = (
    "a build_assert! or build_error! could not be proven at compile time: make the value it checks"
    " known to the compiler (a constant, or #[inline(always)] on the functions it passes through)"
)


def demangled(ctx: Context, toolchain: Toolchain, names: Iterable[str]) -> tuple[str, ...]:
    """Linkage names as they are written in Rust, where the toolchain can tell."""
    mangled = tuple(names)
    if not mangled:
        return ()
    for program in ("llvm-cxxfilt", "c++filt"):
        command: Command = toolchain.command([program, *mangled])
        try:
            lines = ctx.runner.run(command, deadline=30).output.splitlines()
        except KdrvError:
            continue
        if len(lines) == len(mangled):
            return tuple(lines)
    return mangled


def placed(
    ctx: Context, toolchain: Toolchain, diagnostics: Iterable[Diagnostic], output: Path
) -> tuple[Diagnostic, ...]:
    """The diagnostics, with each undefined ``rust_build_error`` telling its functions.

    ``output`` is the directory that the module's name in the diagnostic is relative to.
    """
    return tuple(_placed(ctx, toolchain, diagnostic, output) for diagnostic in diagnostics)


def _placed(ctx: Context, toolchain: Toolchain, diagnostic: Diagnostic, output: Path) -> Diagnostic:
    if diagnostic.tool != "modpost" or f"'{BUILD_ERROR}'" not in diagnostic.message:
        return diagnostic
    object_file = (output / diagnostic.file).with_suffix(".o")
    if not object_file.exists():
        return diagnostic
    # Rarely needed, and slow to import.
    from kdrv.build.callers import callers

    functions = demangled(ctx, toolchain, callers(object_file, BUILD_ERROR))
    if not functions:
        return diagnostic
    message = f"{diagnostic.message} (called in {', '.join(functions)})"
    return replace(diagnostic, message=message, detail=_EXPLAINED)
