"""What the tools of a kernel build say, as records.

The kernel's makefiles have no option for rustc's JSON: it would have to go into ``KRUSTFLAGS``,
which is part of every saved command line, so that asking for it rebuilds the kernel. The text is
parsed instead. It lacks one thing that JSON has: the name of a lint, from its second use on in a
crate. Output must come target by target (``make --output-sync=target``).
"""

from kdrv.build.diagnostics.parse import parse
from kdrv.build.diagnostics.record import Diagnostic, Level, by_file, fresh, ordered

__all__ = ["Diagnostic", "Level", "by_file", "fresh", "ordered", "parse"]
