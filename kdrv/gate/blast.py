"""The blast radius of a patch: what it changes of C as Rust sees it, who uses that, what broke.

A use is found by its name: a path through ``bindings`` or ``uapi``, or a name imported from them.
What goes through a wrapper is not seen: who calls ``dev.name()`` does not count as a user of
``struct device``, only the method's own body does. Neither is a field: a line that reads one counts
only if it also names the struct. So is code in doc comments, and what a macro of rust/macros
expands to where it is called (its own text counts).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.gate.bindings import HELPER, Symbol
from kdrv.gate.git import Repo
from kdrv.gate.result import Blast, Break, Changed, SymbolChange, Use

HELPER_SOURCES = "rust/helpers/"
LONGEST_LINE = 2000

_CRATES = "bindings|uapi"
_MENTION = rf"\b({_CRATES})\b"
_GREP = (
    *("grep", "--no-color", "--no-column", "--no-heading", "--no-break", "--full-name"),
    *("--text", "-z", "-n", "-E", "--all-match"),
)
# What a stranger left open ends somewhere, too: a match that fails would be tried again and again.
_COMMENT = re.compile(r'"(?:[^"\\]|\\.?)*(?:"|$)|//.*')
_USE = re.compile(r"\buse\s(?P<tree>[^;]{1,8000});?")
_TOKEN = re.compile(r"[{},]|[^{},]+")
_RENAMED = re.compile(r"^(?P<path>.*\S)\s+as\s+(?P<name>\w+)$")
_PATH = re.compile(rf"(?:^|::)(?:{_CRATES})(?:::(?P<name>\w+(?:::\w+)*|\*))?$")
_FROM_MACRO = re.compile(rf"\b(?:{_CRATES})::(?:\$|\[<)")
_WORD = re.compile(r"(?<![\w:.])\w+")


def blast(
    before: Mapping[str, Symbol],
    after: Mapping[str, Symbol],
    git: Repo,
    commit: str,
    errors: Sequence[Diagnostic] = (),
) -> Blast:
    """What became of the symbols, and who names them at ``commit``; the used ones come first.

    ``errors`` of the build tell helpers that do not compile any more: they are gone, too. Where
    one side has no symbols at all, nothing is known and nothing is said.
    """
    if not before or not after:
        return Blast()
    changes = {change.name: change for change in _compared(before, after)}
    for name in _broken_helpers(git, commit, errors):
        if name in before and name not in changes:
            text = before[name].text
            changes[name] = SymbolChange(name, HELPER, Changed.GONE, text)
    found = uses(git, commit, changes) if changes else {}
    symbols = [replace(change, uses=found[name]) for name, change in changes.items()]
    return Blast(tuple(sorted(symbols, key=lambda one: (not one.uses, one.name))))


def _compared(before: Mapping[str, Symbol], after: Mapping[str, Symbol]) -> Iterator[SymbolChange]:
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old is None and new is not None:
            yield SymbolChange(name, new.kind, Changed.ADDED, after=new.text)
        elif old is not None and new is None:
            yield SymbolChange(name, old.kind, Changed.GONE, before=old.text)
        elif old and new and (old.kind, old.text) != (new.kind, new.text):
            yield SymbolChange(name, new.kind, Changed.CHANGED, old.text, new.text)


def _broken_helpers(git: Repo, commit: str, errors: Sequence[Diagnostic]) -> Iterator[str]:
    """The helpers whose C does not compile, by the line of the error."""
    for error in errors:
        if error.level is Level.ERROR and error.file.startswith(HELPER_SOURCES):
            source = git.blob(commit, error.file) or ""
            above = "\n".join(source.splitlines()[: error.line])
            if names := re.findall(r"\brust_helper_(\w+)\(", above):
                yield names[-1]


def uses(git: Repo, commit: str, names: Collection[str]) -> dict[str, tuple[Use, ...]]:
    """Where the Rust files of a commit name each of the symbols."""
    found: dict[str, dict[Use, None]] = {name: {} for name in names}
    for file, lines in _rust_files(git, commit).items():
        for name, number in _named(lines, found.keys()):
            found[name][Use(file, number, lines[number - 1].strip())] = None
    return {name: tuple(places) for name, places in found.items()}


def _rust_files(git: Repo, commit: str) -> dict[str, list[str]]:
    """The Rust files that mention the crates of C symbols, as lines.

    git prints all lines of the files that have both a mention and a line; what is no UTF-8 cannot
    confuse where the next file begins.
    """
    shown = git.run(*_GREP, "-e", _MENTION, "-e", "^", commit, "--", "*.rs", check=False)
    start = len(commit) + 1
    files: dict[str, list[str]] = {}
    for line in shown.output.split("\n"):
        place, _, rest = line.partition("\0")
        if place.startswith(f"{commit}:"):
            files.setdefault(place[start:], []).append(rest.partition("\0")[2])
    return files


def _named(lines: Sequence[str], names: Collection[str]) -> Iterator[tuple[str, int]]:
    """Each of the names with the numbers of the lines that name it."""
    code = "\n".join(_COMMENT.sub(_without_comment, line[:LONGEST_LINE]) for line in lines)
    modules = set(_CRATES.split("|"))
    imported: dict[str, str] = {}
    # A macro pastes names behind the path: they stand bare where the file calls it.
    everything = bool(_FROM_MACRO.search(code))
    importing: set[int] = set()
    for use in _USE.finditer(code):
        first = code.count("\n", 0, use.start()) + 1
        importing |= set(range(first, first + use["tree"].count("\n") + 1))
        for path, local in _leaves(use["tree"]):
            match = _PATH.search(path)
            if match and match["name"] is None:
                modules.add(local)
            elif match and match["name"] == "*":
                everything = True
            elif match:
                imported[local] = match["name"]
    through = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(modules)))})::(\w+)(::\w+)?")
    for number, line in enumerate(code.split("\n"), 1):
        for match in through.finditer(line):
            yield from ((n, number) for n in (match[1], match[1] + (match[2] or "")) if n in names)
        if not (imported or everything):
            continue
        for match in _WORD.finditer(line):
            word = match.group()
            name = imported.get(word, word if everything else "")
            if name in names and (number in importing or _looks_global(line, match)):
                yield name, number


def _without_comment(match: re.Match[str]) -> str:
    return "" if match.group().startswith("//") else match.group()


def _leaves(tree: str) -> Iterator[tuple[str, str]]:
    """The paths that a ``use`` names, each with its local name (The Rust Reference, "Use
    declarations")."""
    prefixes, path = [""], ""
    for token in (*_TOKEN.findall(tree), ","):
        if token == "{":
            prefixes.append(prefixes[-1] + path)
            path = ""
        elif token in ("}", ","):
            if path:
                yield _leaf(prefixes[-1] + path)
            path = ""
            if token == "}" and len(prefixes) > 1:
                prefixes.pop()
        else:
            path += token.strip()


def _leaf(path: str) -> tuple[str, str]:
    match = _RENAMED.match(path)
    whole = (match["path"] if match else path).removesuffix("::self")
    return whole, match["name"] if match else whole.rpartition("::")[2]


def _looks_global(line: str, match: re.Match[str]) -> bool:
    """Whether a word that was imported is used as what it is, and not as some variable's name."""
    before, after = line[: match.start()].rstrip(), line[match.end() :].lstrip()
    if before.endswith(("fn", "let", "mod", "struct")):
        return False
    typed = before.endswith((":", "*mut", "*const", "->", "<"))
    return typed or match.group().isupper() or after.startswith(("(", "{", "::"))


@dataclass(frozen=True)
class State:
    """The Rust lane after a patch, as far as :func:`breaks` wants to know it.

    ``errors`` are those that are new against the parent.
    """

    number: int
    ok: bool
    errors: tuple[Diagnostic, ...] = ()
    blast: Blast | None = None


def concerned(history: Sequence[Blast], errors: Sequence[Diagnostic]) -> tuple[SymbolChange, ...]:
    """The symbol changes that the errors are about, most surely concerned first.

    In falling order of certainty: the error's message names the symbol; it stands where the symbol
    is used; what the compiler quotes and notes names it; it quotes a field that the change touches,
    in a file that uses the symbol. Of a symbol that changed twice the last change counts.
    """
    wrong = [_Error.of(error) for error in errors if error.level is Level.ERROR]
    latest = {change.name: change for one in history for change in one.symbols}
    scores: dict[str, tuple[int, int]] = {}
    for name, change in latest.items():
        found = [score for error in wrong if (score := error.about(change))]
        if found:
            scores[name] = max(found), len(found)
    return tuple(
        latest[name] for name in sorted(scores, key=lambda name: scores[name], reverse=True)
    )


# rustc's `code`, gcc's and modpost's quotes, and ld's `name'.
_QUOTES = re.compile(
    r"`([^`\n]{1,400})`|\u2018([^\u2019\n]{1,400})\u2019|\"([^\"\n]{1,400})\"|[`'](\w{1,400})'"
)
_DECLARED = re.compile(rf"\b(?:(?:{_CRATES})::|fn |rust_helper_)(\w+)")
_SHOWN = re.compile(r"^ *(?P<line>\d+) \|(?P<text>.*)", re.M)
_FIELD = re.compile(r"^(?:    pub |// \w+: )(?P<name>\w+):.*(?:\n     .*|\n    [^p\s].*)*", re.M)


@dataclass(frozen=True)
class _Error:
    """An error as the names it mentions: in its message, in what is below it, in quoted code."""

    record: Diagnostic
    told: frozenset[str]
    noted: frozenset[str]
    quoted: frozenset[str]

    @classmethod
    def of(cls, error: Diagnostic) -> _Error:
        code = " ".join(
            shown["text"]
            for shown in _SHOWN.finditer(error.detail)
            if int(shown["line"]) == error.line
        )
        below = _quoted(error.detail) | set(_DECLARED.findall(error.detail))
        told = _quoted(error.message) | set(_DECLARED.findall(error.message))
        words = frozenset(re.findall(r"\w+", code))
        return cls(error, frozenset(told), frozenset(below), words)

    def about(self, change: SymbolChange) -> int:
        """How surely the error is about the change; 0 for not at all."""
        name = change.name.rpartition("::")[2]
        if name in self.told:
            return 4
        if change.changed is Changed.ADDED:
            return 0
        file, line = self.record.file, self.record.line
        if any((use.file, use.line) == (file, line) for use in change.uses):
            return 3
        if name in self.noted:
            return 2
        here = any(use.file == file for use in change.uses)
        return int(here and not _fields(change).isdisjoint(self.quoted | self.told))


def _quoted(text: str) -> set[str]:
    parts = ("".join(groups) for groups in _QUOTES.findall(text))
    words = {word for part in parts for word in re.findall(r"\w+", part)}
    return words | {word.removeprefix("rust_helper_") for word in words}


def _fields(change: SymbolChange) -> set[str]:
    """The fields, bit-fields too, that only one side has or that differ."""
    before, after = (
        {(match["name"], match.group()) for match in _FIELD.finditer(text)}
        for text in (change.before, change.after)
    )
    return {name for name, _ in before ^ after}


def breaks(lane: str, states: Sequence[State]) -> tuple[Break, ...]:
    """Every patch that broke a lane, with the first one after which it was green again.

    A compiler stops at its first errors, so that mending them shows others, older ones. New errors
    of a lane that is red already are a break of its own only where they are about what this very
    patch changed, or about nothing that an earlier patch since the lane was green changed.
    """
    found: list[Break] = []
    red: list[Break] = []
    history: list[Blast] = []
    for state in states:
        if state.ok:
            found += [replace(one, mended=state.number) for one in red]
            red, history = [], []
            continue
        own = (state.blast,) if state.blast else ()
        mine, theirs = concerned(own, state.errors), concerned(history, state.errors)
        if not red or (state.errors and (mine or not theirs)):
            red.append(Break(lane, state.number, None, mine or theirs))
        elif theirs:
            red[-1] = replace(red[-1], symbols=_merged(red[-1].symbols, theirs))
        history += own
    return tuple(found + red)


def _merged(
    one: tuple[SymbolChange, ...], other: tuple[SymbolChange, ...]
) -> tuple[SymbolChange, ...]:
    names = {change.name for change in one}
    return (*one, *(change for change in other if change.name not in names))
