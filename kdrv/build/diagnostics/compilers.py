"""gcc, clang, the assembler, sparse, bindgen and rustc."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from kdrv.build.diagnostics.draft import Draft, Rule, level_of, simple
from kdrv.build.diagnostics.record import Diagnostic, Level

GCC = "gcc"
CLANG_TOTAL = re.compile(r"^\d+ (?:warnings?|errors?)(?: and \d+ errors?)? generated\.$")
"""clang's last line about a file; gcc has none, and their messages look the same."""

_C_HEAD = re.compile(
    r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:(?P<column>\d+):)? "
    r"(?P<level>(?:fatal |internal compiler )?error|warning|note|sorry, unimplemented): "
    r"(?P<message>.*?)(?: \[(?P<code>-W[^\]]+)\])?$"
)
_C_PRELUDE = re.compile(
    r"^(?:In file included from |\s+from |\s+inlined from |In \w+(?: \w+)* ['\u2018]"
    r"|[^\s:][^:]*: (?:In (?:\w+ )*function|At top level|In member))"
)
_C_QUOTE = re.compile(r"^ *\d* \|")
_EXPANDED = re.compile(
    r"^(?P<file>[^\s:]+):(?P<line>\d+):(?P<column>\d+): note: in expansion of macro"
)
_INLINED = re.compile(r"^\s+inlined from .* at (?P<file>[^\s:]+):(?P<line>\d+):(?P<column>\d+)[,:]")
_WERROR = re.compile(r"^-Werror[=,](?:-W)?")


@dataclass
class _CDraft(Draft):
    """A message of gcc or clang."""

    def finished(self) -> Diagnostic:
        """The record; what a macro or inline function of a header made stands where it is used."""
        uses = [m for line in self.details if (m := _EXPANDED.match(line) or _INLINED.match(line))]
        if uses and uses[-1]["file"] != self.file:
            self.file = uses[-1]["file"]
            self.line, self.column = int(uses[-1]["line"]), int(uses[-1]["column"])
        self.code = _WERROR.sub("-W", self.code)
        return super().finished()


def _begin_c(match: re.Match[str], prelude: Sequence[str]) -> Draft:
    tool = "checksyscalls" if "#warning syscall" in match["message"] else GCC
    return _CDraft(
        tool,
        level_of(match["level"]),
        match["message"],
        file=match["file"],
        line=int(match["line"]),
        column=int(match["column"] or 0),
        code=match["code"] or "",
        details=list(prelude),
        more=_C_QUOTE,
    )


_RUST_HEAD = re.compile(
    r"^(?P<level>error|warning|note|help)(?:\[(?P<code>E\d+)\])?: (?P<message>.+)$"
)
_RUST_TOTAL = re.compile(
    r"^(?:error: aborting due to |(?:warning|error): \d+ warnings? emitted"
    r"|Some errors have detailed |For more information about )"
)
_RUST_PLACE = re.compile(r"^\s*--> (?P<file>[^:]+):(?P<line>\d+):(?P<column>\d+)$")
_RUST_INSTANTIATED = "note: the above error was encountered while instantiating"
_RUST_MORE = re.compile(r".")
_LINTS = (
    re.compile(r"rust-clippy/\S+#(?P<clippy>\w+)"),
    re.compile(r"`#\[(?:warn|deny|forbid)\((?P<lint>[\w:]+)\)\]`"),
    re.compile(r"`-[WDF] (?P<lint>[\w:-]+)` implied by"),
    re.compile(r"with `-[WDF] (?P<lint>[\w:-]+)`"),
    re.compile(r"#!?\[(?:warn|deny|forbid)\((?P<lint>[\w:]+)\)\]"),
)


@dataclass
class _RustDraft(Draft):
    """A message of rustc or clippy: it ends at the first empty line."""

    def finished(self) -> Diagnostic:
        """The record, with place and lint from the lines below the head."""
        for number, line in enumerate(self.details):
            if place := _RUST_PLACE.match(line):
                self.message = "\n".join([self.message, *self.details[:number]])
                self._place(place)
                break
        for note, below in pairwise(self.details):
            # An error in a generic function of a library shows only where it is used.
            place = _RUST_PLACE.match(below)
            if note.startswith(_RUST_INSTANTIATED) and place and place["file"] != self.file:
                self._place(place)
        self.code = self.code or self._lint()
        if self.code.startswith("clippy::"):
            self.tool = "clippy"
        return super().finished()

    def _place(self, place: re.Match[str]) -> None:
        self.file = place["file"]
        self.line, self.column = int(place["line"]), int(place["column"])

    def _lint(self) -> str:
        text = "\n".join(self.details)
        for pattern in _LINTS:
            if found := pattern.search(text):
                groups = found.groupdict()
                name = f"clippy::{groups['clippy']}" if groups.get("clippy") else groups["lint"]
                return name.replace("-", "_")
        return ""


def _begin_rust(match: re.Match[str], prelude: Sequence[str]) -> Draft:
    return _RustDraft(
        "rustc",
        level_of(match["level"]),
        match["message"],
        code=match["code"] or "",
        details=list(prelude),
        more=_RUST_MORE,
    )


_PANIC = re.compile(
    r"^thread '[^']*'(?: \(\d+\))? panicked at "
    r"(?:'(?P<message>.*)', )?(?P<file>[^:]+):(?P<line>\d+):(?P<column>\d+):?$"
)


@dataclass
class _PanicDraft(Draft):
    """A Rust program of the build (bindgen, rustc, a generator) that panicked."""

    def takes(self, line: str) -> bool:
        """The first line below is the message, unless the head had it."""
        if not line:
            return False
        if self.message:
            return super().takes(line)
        self.message = line
        return True


def _begin_panic(match: re.Match[str], prelude: Sequence[str]) -> Draft:
    place = f"panicked at {match['file']}:{match['line']}"
    return _PanicDraft(
        "rust program",
        Level.ERROR,
        match["message"] or "",
        code="panic",
        details=[*prelude, place],
        more=_RUST_MORE,
    )


COMPILERS: tuple[Rule, ...] = (
    Rule(
        # sparse under CF=-fdiagnostic-prefix; without it, its lines look like the compiler's.
        re.compile(
            r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?P<column>\d+): sparse: "
            r"(?P<level>error|warning): (?P<message>.*)$"
        ),
        simple("sparse", more=re.compile(r"^[^\s:][^:]*:\d+:\d+: sparse:    ")),
    ),
    Rule(_C_HEAD, _begin_c, prelude=_C_PRELUDE, ignore=CLANG_TOTAL),
    Rule(
        re.compile(
            r"^(?P<file>[^\s:]+):(?P<line>\d+): (?P<level>Error|Warning|Fatal error): "
            r"(?P<message>.*)$"
        ),
        simple("as"),
        ignore=re.compile(r"^(?:[^\s:]+: Assembler messages:|compilation terminated\.)$"),
    ),
    Rule(
        re.compile(r"^(?P<level>warning): (?P<message>(?:the \S+ |\S+ version )differs from .*)$"),
        simple("kbuild", more=re.compile(r"^  (?:The|You) ")),
    ),
    Rule(
        re.compile(r"^(?P<message>Unable to generate bindings: .*)$"),
        simple("bindgen", level=Level.ERROR),
    ),
    Rule(_PANIC, _begin_panic),
    Rule(_RUST_HEAD, _begin_rust, ignore=_RUST_TOTAL),
)
