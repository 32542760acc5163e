"""modpost, objtool, the linkers, Kconfig, dtc and make itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdrv.build.diagnostics.draft import Draft, Rule, level_of, simple
from kdrv.build.diagnostics.record import Diagnostic, Level

MAKE = re.compile(
    r"^make(?:\[\d+\])?: \*\*\* "
    r"(?:\[(?:(?P<file>[^\s:\]]+):(?P<line>\d+): )?(?P<target>[^\]]+)\] )"
    r"(?P<message>(?:Error \d+|Segmentation fault|Killed|Terminated|Aborted|Bus error).*)$"
)
"""A command of make's failed; the reason stands above it."""

SECTION_MISMATCH = "section-mismatch"
MISMATCHES_TOTAL = re.compile(r"^ERROR: modpost: Section mismatches detected\.$")
"""modpost's last line when the section mismatches it warned of make it fail."""

_UNDEFINED = (
    # Linux 7.3, then the form of 5.8 to 7.2
    re.compile(r"^(?P<module>\S+): symbol '(?P<symbol>[^']+)' undefined!$"),
    re.compile(r'^"(?P<symbol>[^"]+)" \[(?P<module>[^\]]+)\] undefined!$'),
)
_OBJECT = re.compile(r"^(?P<module>[^\s:]+): (?P<message>.+)$")
_SECTION = "section mismatch in reference"
_LINKED = re.compile(
    r"^(?:\S*ld(?:\.\w+)?: )?(?:(?P<place>[^\s:(]+(?::\d+)?):)?\([^)\s]+\+0x[0-9a-f]+\): "
    r"(?P<message>.*)$"
)
_LLD_PLACE = re.compile(r"^>>> (?:referenced by|defined at) (?P<file>[^\s:]+)(?::(?P<line>\d+))?")
_LLD_CONTEXT = re.compile(r"^>>> ")
_LIST = re.compile(r"^  ")


def _begin_modpost(match: re.Match[str], prelude: Sequence[str]) -> Draft:
    """What modpost says about a module stands under the module's name (scripts/mod/modpost.c)."""
    draft = Draft("modpost", level_of(match["level"]), match["message"], details=list(prelude))
    for pattern in _UNDEFINED:
        if found := pattern.match(draft.message):
            draft.file = found["module"]
            draft.code = "undefined-symbol"
            draft.message = f"symbol '{found['symbol']}' undefined"
            return draft
    if found := _OBJECT.match(draft.message):
        draft.file, draft.message = found["module"], found["message"]
    draft.code = SECTION_MISMATCH if _SECTION in draft.message else ""
    return draft


@dataclass
class _LinkDraft(Draft):
    """A message of ld or ld.lld; lld says below it who refers to the symbol."""

    def finished(self) -> Diagnostic:
        """The record, placed at the first reference that names a file."""
        for line in self.details:
            if not self.file and (place := _LLD_PLACE.match(line)):
                self.file, self.line = place["file"], int(place["line"] or 0)
        return super().finished()


def _begin_ld(match: re.Match[str], prelude: Sequence[str]) -> Draft:
    place, _, line = (match["place"] or "").partition(":")
    message = match["message"]
    draft = _LinkDraft("ld", Level.ERROR, message, details=[*prelude, match[0]])
    # Without debug information GNU ld knows only the bare name of the source, if that.
    draft.file, draft.line = place, int(line or 0)
    draft.level = Level.WARNING if message.startswith("warning: ") else Level.ERROR
    draft.code = "undefined-symbol" if "undefined reference" in message else ""
    return draft


def _begin_lld(match: re.Match[str], prelude: Sequence[str]) -> Draft:
    draft = _LinkDraft(
        match["tool"],
        level_of(match["level"]),
        match["message"],
        details=list(prelude),
        more=_LLD_CONTEXT,
    )
    draft.code = "undefined-symbol" if draft.message.startswith("undefined symbol") else ""
    return draft


OTHERS: tuple[Rule, ...] = (
    Rule(
        re.compile(r"^(?P<level>ERROR|WARNING|FATAL): modpost: (?P<message>.*)$"),
        _begin_modpost,
        ignore=re.compile(r"^Set CONFIG_SECTION_MISMATCH_WARN_ONLY=y to allow them\."),
    ),
    Rule(
        re.compile(r"^(?:(?P<file>[^\s:]+): )?(?P<level>warning|error): objtool: (?P<message>.*)$"),
        simple("objtool", more=re.compile(r"^  \S+: ")),
    ),
    Rule(
        re.compile(r"^(?P<tool>(?:\S*/)?ld\.lld): (?P<level>error|warning): (?P<message>.*)$"),
        _begin_lld,
    ),
    Rule(
        _LINKED,
        _begin_ld,
        prelude=re.compile(r"^\S*ld(?:\.\w+)?: [^:]+: in function [`'\u2018]"),
    ),
    Rule(
        # scripts/kconfig: conf_warning() and menu_warn() put no space before the level.
        re.compile(
            r"^(?P<file>[^\s:]+):(?P<line>\d+):\s?(?P<level>warning|error): ?(?P<message>.*)$"
        ),
        simple("kconfig"),
    ),
    Rule(
        re.compile(
            r"^(?P<file>[^\s:]*Kconfig[^\s:]*):(?P<line>\d+): (?P<message>(?:syntax error|"
            r"unknown statement|invalid statement|unexpected |can't open file|recursive |"
            r"missing end statement|symbol '|choice ).*)$"
        ),
        simple("kconfig", level=Level.ERROR),
    ),
    Rule(
        re.compile(r"^(?P<level>WARNING): (?P<message>unmet direct dependencies detected for .*)$"),
        simple("kconfig", code="unmet-dependencies", more=_LIST),
    ),
    Rule(
        re.compile(
            r"^(?P<file>[^\s:]+):(?P<line>\d+)\.(?P<column>\d+)[-.\d]*: "
            r"(?P<level>Warning|ERROR) \((?P<code>\w+)\): (?P<message>.*)$"
        ),
        simple("dtc", more=re.compile(r"^  also defined at ")),
    ),
    Rule(
        re.compile(
            r"^(?P<level>Error): (?P<file>[^\s:]+):(?P<line>\d+)\.(?P<column>\d+)[-.\d]* "
            r"(?P<message>.*)$"
        ),
        simple("dtc"),
        ignore=re.compile(r"^FATAL ERROR: Unable to parse input tree$"),
    ),
    Rule(
        re.compile(r"^(?P<tool>make)(?:\[\d+\])?: (?P<level>warning): +(?P<message>.*)$"),
        simple("make"),
    ),
    Rule(
        re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+): \*\*\* (?P<message>.*?)(?:  Stop)?\.?$"),
        simple("make", level=Level.ERROR),
    ),
    Rule(
        re.compile(r"^make(?:\[\d+\])?: \*\*\* (?P<message>No .*?)(?:  Stop)?\.?$"),
        simple("make", level=Level.ERROR),
        ignore=re.compile(r"^make(?:\[\d+\])?: \*\*\* (?:Deleting|Waiting) "),
    ),
    Rule(
        re.compile(
            r"^(?:\S*/)?(?P<tool>[\w.+-]+): (?:fatal )?(?P<level>error|warning|fatal): "
            r"(?P<message>.*)$"
        ),
        simple(""),
        ignore=re.compile(r"^collect2: error: ld returned"),
    ),
    Rule(
        re.compile(r"^(?P<tool>fixdep|bindgen|pahole|gendwarfksyms): (?P<message>.*)$"),
        simple("", level=Level.ERROR),
    ),
)
