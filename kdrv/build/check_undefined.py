"""Who uses a symbol that modpost calls undefined: modpost names the module, never the place.

For Rust this is often all there is: ``build_error!`` that the compiler could not prove unreachable
becomes a call of ``rust_build_error``, which exists nowhere.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from kdrv.core.inside import UntrustedFile

UNDEFINED = re.compile(r"symbol '(?P<symbol>[^']+)' undefined")
BUILD_ERROR_MEANS = (
    "a build_assert!, build_error! or a checked constant offset whose condition the compiler cannot"
    " prove at compile time; use the try_ form, or #[inline(always)] so that constants arrive"
)


def users(objects: Path, symbol: str) -> tuple[str, ...]:
    """The functions, by their mangled names, that refer to ``symbol`` in the ``.o`` files below
    a directory. What is no ELF is passed over.
    """
    # Rarely needed, and slow to import.
    from kdrv.build.callers import callers

    found: dict[str, None] = {}
    for path in sorted(objects.rglob("*.o")):
        with contextlib.suppress(UntrustedFile):
            found.update(dict.fromkeys(callers(path, symbol)))
    return tuple(found)
