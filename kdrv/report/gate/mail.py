"""A judged series as a reply to the mailing list: facts, and how to see them again."""

from __future__ import annotations

import re
import shlex
import textwrap
from email.message import EmailMessage
from email.policy import EmailPolicy

import kdrv
from kdrv.core.show import plural
from kdrv.gate.result import Break, GateResult, Outcome, PatchResult
from kdrv.report.gate.fit import fit, line
from kdrv.report.gate.plain import diagnostic_lines
from kdrv.report.gate.words import (
    Finding,
    blast_words,
    blasts,
    break_words,
    change_lines,
    counts,
    findings,
    first,
    place_of,
    symbol_words,
    toolchain_words,
    use_words,
)

WIDTH = 76
MOST_DIAGNOSTICS = 4
"""Of one check: a mail names the first ones, its reader runs the command for the rest."""
MOST_FINDINGS = 12
MOST_SYMBOLS = 4
MOST_DETAIL = 12
# Headers stand in one line each: Python would encode an identifier that it cannot fold.
_POLICY = EmailPolicy(max_line_length=998, cte_type="8bit", utf8=False)
_ID = re.compile(r"<?([^\s<>@]+@[^\s<>@]+)>?")


def gate_mail(result: GateResult, *, cover_id: str = "", subject: str = "") -> EmailMessage:
    """The reply, without sender, receivers and date, which the caller knows.

    It answers the cover letter if its ``cover_id`` is given, else the patch to be looked at first.
    ``subject`` is that of the mail it answers, where it is known with all its ``[PATCH]``.
    """
    result = fit(result)
    answered = _answered(result)
    about = subject or (answered.patch.subject if answered else result.series.source)
    mail = EmailMessage(_POLICY)
    mail["Subject"] = line(about if about.lower().startswith("re:") else f"Re: {about}")
    cover = _message_id(cover_id)
    own = _message_id(answered.patch.message_id) if answered else ""
    if parent := cover or own:
        mail["In-Reply-To"] = parent
        mail["References"] = parent
    mail.set_content("\n".join(_body(result)) + "\n", cte="8bit")
    return mail


def _answered(result: GateResult) -> PatchResult | None:
    finding = first(result)
    if finding and finding.patch:
        return finding.patch
    return next(iter(result.patches), None)


def _message_id(text: str) -> str:
    """``<one@host>``, or nothing where it is none: a header is no place for guesses."""
    found = _ID.fullmatch(line(text))
    return f"<{found[1]}>" if found and found[1].isascii() else ""


def _body(result: GateResult) -> list[str]:
    lines = ["Hello,", "", *_wrap(_opening(result)), ""]
    found = findings(result)
    urgent = first(result)
    if urgent:
        lines += _urgent(urgent)
    for broken in result.breaks:
        lines += _break(broken)
    if rest := [finding for finding in found if finding != urgent]:
        lines += ["Also found:", ""]
        for finding in rest[:MOST_FINDINGS]:
            lines += _finding(finding)
        more = len(rest) - MOST_FINDINGS
        lines += [*([f"- and {plural(more, 'more finding')}"] if more > 0 else []), ""]
    if told := [(patch, blast) for patch, blast in blasts(result) if blast.used]:
        lines += ["What changes for Rust code:", ""]
        for patch, blast in told:
            lines += _wrap(f"{place_of(patch, result)}: {blast_words(blast)}", first_indent="- ")
        lines += [""]
    passed = sum(check.outcome is Outcome.PASS for _, check in result.all_checks())
    if found and passed:
        lines += [*_wrap(f"The other {plural(passed, 'check')} passed."), ""]
    lines += [*_wrap("To run all of it again:"), "", *_command(result.reproducer), ""]
    return [*lines, "-- ", f"kdrv {kdrv.__version__}, {toolchain_words(result)}"[:WIDTH]]


def _opening(result: GateResult) -> str:
    number = len(result.patches)
    what = plural(number, "patch", "patches")
    base = f"on Linux {result.kernel} (base {result.series.base[:12]})"
    if not number:
        return f"kdrv gate was asked to judge this series {base}, but found no patch in it."
    words = counts(result) if findings(result) else "everything passes"
    return f"kdrv gate judged this series of {what} {base}, patch by patch: {words}."


def _urgent(finding: Finding) -> list[str]:
    """What is to be looked at first, with its evidence and its command."""
    sentence = finding.sentence
    lines = _wrap(f"{sentence[0].upper()}{sentence[1:]}.")
    evidence = _evidence(finding)
    if evidence:
        lines += ["", *evidence]
    if finding.check.policy:
        lines += ["", *_wrap(f"This follows from the policy: {finding.check.policy}")]
    if finding.check.reproducer:
        lines += ["", "To see it:", "", *_command(finding.check.reproducer)]
    return [*lines, ""]


def _evidence(finding: Finding) -> list[str]:
    told = diagnostic_lines(finding.check.diagnostics, MOST_DIAGNOSTICS)
    lines = [part for one in told for part in _wrap(one, first_indent="  ", indent="    ")]
    detail = [part for text in finding.check.detail for part in text.splitlines()]
    # What is quoted, such as a hunk, keeps its form, and is cut where it is too wide.
    return lines + [f"  {part.expandtabs()}"[:WIDTH].rstrip() for part in detail[:MOST_DETAIL]]


def _break(broken: Break) -> list[str]:
    words = break_words(broken)
    lines = [*_wrap(f"{words[0].upper()}{words[1:]}."), ""]
    for symbol in broken.symbols[:MOST_SYMBOLS]:
        lines += _wrap(symbol_words(symbol), first_indent="  ", indent="    ")
        for word, text in change_lines(symbol):
            lines += _wrap(f"{word} {text}", first_indent="    ", indent="      ")
        if symbol.uses:
            lines += _wrap(f"used in {use_words(symbol.uses)}", first_indent="    ", indent="    ")
    if more := broken.symbols[MOST_SYMBOLS:]:
        lines += [f"  and {plural(len(more), 'more symbol')}"]
    if broken.maintainers:
        asked = f"Who knows the Rust side: {', '.join(broken.maintainers)}"
        lines += ["", *_wrap(asked)]
    return [*lines, ""]


def _finding(finding: Finding) -> list[str]:
    lines = _wrap(finding.sentence, first_indent="- ")
    if finding.check.outcome is not Outcome.WARN:
        lines += _evidence(finding)
    if finding.check.policy:
        lines += _wrap(f"policy: {finding.check.policy}", first_indent="  ")
    if finding.check.outcome is Outcome.FAIL and finding.check.reproducer:
        lines += _command(finding.check.reproducer)
    return lines


def _wrap(text: str, *, first_indent: str = "", indent: str = "  ") -> list[str]:
    """Lines of at most 76 columns; what has no blank, such as a path, is not broken."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first_indent,
        subsequent_indent=indent if first_indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _command(text: str) -> list[str]:
    """A shell's command, continued over lines as a shell takes it."""
    try:
        words = [shlex.quote(word) for word in shlex.split(text)]
    except ValueError:
        return [f"  {text}"]
    lines: list[str] = []
    for word in words:
        # Room for the blank and the backslash that continue the line.
        if lines and len(lines[-1]) + len(word) + 3 <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{'      ' if lines else '  '}{word}")
    return [f"{one} \\" for one in lines[:-1]] + lines[-1:]
