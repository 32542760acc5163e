"""What a patch says of itself: sign-offs, trailers, Fixes tags; and where its files would lie.

The rules are those of Documentation/process/submitting-patches.rst.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.gate.churn import TOOL
from kdrv.gate.git import Repo
from kdrv.gate.links import judge_links
from kdrv.gate.policy import NOTICES, without_notes
from kdrv.gate.result import Check, Outcome
from kdrv.gate.series import Patch

SIGNED = "Signed-off-by"
CO_DEVELOPED = "Co-developed-by"
FIXES = "Fixes"
PEOPLE = (
    SIGNED,
    CO_DEVELOPED,
    "Acked-by",
    "Reviewed-by",
    "Tested-by",
    "Reported-by",
    "Suggested-by",
    "Cc",
)
"""Tags that name a person."""
ADDRESSES = ("Cc", "Reported-by", "Tested-by")
"""Those of them that robots and lists have too, which are only an address: ``<stable@...> # 6.1.x``
(Documentation/process/stable-kernel-rules.rst)."""
KNOWN = (*PEOPLE, FIXES, "Closes", "Link", "Assisted-by", *NOTICES.values())
SHORTEST = 12
"""Digits of a commit's id in a Fixes tag, at least."""
LONGEST = 40
"""Letters of a tag, at most; longer ones are no misspelt tags."""

_PERSON = re.compile(r"^(?P<name>[^<>]*)<(?P<mail>[^<>\s@]+@[^<>\s@]+)>(?P<more>.*)$")
_BARE = re.compile(r"^[^<>\s@]+@[^<>\s@]+(?:\s.*)?$")
_MORE = re.compile(r"^\s*(?:[#\[(].*)?$")
_FIXES = re.compile(r"^(?P<commit>[0-9a-fA-F]{4,40}) \(\"(?P<subject>.*)\"\)$")
_ANY_FIXES = re.compile(rf"^{FIXES}:[ \t]*([0-9a-fA-F]{{4,40}}\b.*)$", re.M)
_COMMIT = re.compile(r"^(?:commit\s+)?(?P<commit>[0-9a-fA-F]{4,40})\b")
_TAG = re.compile(rf"^(?P<key>{'|'.join(KNOWN[: -len(NOTICES)])}):\s", re.M)


@dataclass(frozen=True)
class Trailer:
    """``key: value``, as it is written."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value}"

    def has(self, key: str) -> bool:
        """Whether it is this tag, in upper or lower case."""
        return self.key.lower() == key.lower()


def trailers(git: Repo, message: str) -> tuple[Trailer, ...]:
    """A message's trailers as git-interpret-trailers(1) finds them, continued lines joined, above
    the line ``---``."""
    done = git.run("interpret-trailers", "--parse", input=f"{message.rstrip()}\n")
    pairs = (line.partition(":") for line in done.output.splitlines())
    return tuple(Trailer(key.strip(), value.strip()) for key, colon, value in pairs if colon)


def judge_message(git: Repo, patch: Patch) -> tuple[Check, ...]:
    """``signed-off-by``, ``trailers``, ``fixes`` and ``links`` of one patch.

    A Fixes tag is looked up in the history of the patch; where that is not here, because the
    repository is shallow or the tree one imported commit, the check is skipped and says so.
    """
    facts = git.text("show", "--no-patch", "--format=%P%x00%cn <%ce>", patch.commit)
    parents, _, committer = facts.partition("\0")
    if len(parents.split()) > 1:
        names = ("signed-off-by", "trailers", "fixes")
        skipped = (Check(name, Outcome.SKIP, "a merge") for name in names)
        return *skipped, judge_links(git, patch)
    found = trailers(git, patch.message)
    return (
        _signed(patch, committer, found),
        _well_formed(patch, found),
        _fixes(git, patch, _fixes_tags(patch, found)),
        judge_links(git, patch),
    )


def same_person(one: str, other: str) -> bool:
    """Whether two ``Name <address>`` have an address in common, or else the name."""
    mine, theirs = _identity(one), _identity(other)
    return mine[1] == theirs[1] or (bool(mine[0]) and mine[0] == theirs[0])


def _identity(person: str) -> tuple[str, str]:
    match = _PERSON.match(person)
    if not match:
        return person.strip().casefold(), person.strip().casefold()
    name = " ".join(match["name"].strip(' "').split()).casefold()
    # user+tag@host is user@host.
    user, _, host = match["mail"].casefold().partition("@")
    return name, f"{user.partition('+')[0]}@{host}"


def _signed(patch: Patch, committer: str, found: Sequence[Trailer]) -> Check:
    name = "signed-off-by"
    signers = [trailer.value for trailer in found if trailer.has(SIGNED)]
    show = _show(patch)
    said = tuple(f"{SIGNED}: {signer}" for signer in signers)
    if not signers:
        why = f"no {SIGNED} (git commit --amend --signoff)"
        return Check(name, Outcome.FAIL, why, reproducer=show)
    if not any(same_person(patch.author, signer) for signer in signers):
        why = f"the author, {patch.author}, has not signed it off"
        return Check(name, Outcome.FAIL, why, detail=said, reproducer=show)
    if not any(_identity(patch.author)[1] == _identity(signer)[1] for signer in signers):
        why = f"the author, {patch.author}, has signed it off from another address"
        return Check(name, Outcome.WARN, why, detail=said, reproducer=show)
    if not any(same_person(committer, signer) for signer in signers):
        why = f"{committer} committed it and has not signed it off"
        return Check(name, Outcome.WARN, why, detail=said, reproducer=show)
    if not same_person(committer, signers[-1]):
        why = f"{committer} committed it, and the last sign-off is another's"
        return Check(name, Outcome.WARN, why, detail=said, reproducer=show)
    return Check(name, Outcome.PASS)


def _well_formed(patch: Patch, found: Sequence[Trailer]) -> Check:
    wrong = [*_co_developers(patch, found), *_misplaced(patch, found)]
    for trailer in found:
        wrong += _one(trailer)
    if not wrong:
        return Check("trailers", Outcome.PASS)
    outcome = Outcome.FAIL if any(one.level is Level.ERROR for one in wrong) else Outcome.WARN
    return Check("trailers", outcome, wrong[0].message, tuple(wrong), reproducer=_show(patch))


def _one(trailer: Trailer) -> list[Diagnostic]:
    """What is wrong with one trailer by itself."""
    known = next((key for key in KNOWN if trailer.has(key)), None)
    if known is None:
        near = get_close_matches(
            trailer.key.lower()[:LONGEST], [key.lower() for key in KNOWN], 1, 0.85
        )
        right = next((key for key in KNOWN if near and key.lower() == near[0]), "")
        return [_wrong(f"unknown tag {trailer.key}, meant is {right}", trailer)] if right else []
    if trailer.key != known:
        return [_wrong(f"{trailer.key} is written {known}", trailer, Level.WARNING)]
    if known in NOTICES.values() and not trailer.value:
        return [_wrong(f"{known} gives no reason", trailer)]
    if known in PEOPLE:
        person = _PERSON.match(trailer.value)
        if known in ADDRESSES and _BARE.match(trailer.value):
            return []
        if not person or not (person["name"].strip() or known in ADDRESSES):
            level = Level.ERROR if known in (SIGNED, CO_DEVELOPED) else Level.WARNING
            return [_wrong(f"{known} names nobody as Name <address>", trailer, level)]
        if not _MORE.match(person["more"]):
            return [_wrong(f"{known} has text after the address", trailer, Level.WARNING)]
    return []


def _co_developers(patch: Patch, found: Sequence[Trailer]) -> list[Diagnostic]:
    wrong = []
    for trailer, following in pairwise((*found, Trailer("", ""))):
        if not trailer.has(CO_DEVELOPED):
            continue
        if not (following.has(SIGNED) and same_person(following.value, trailer.value)):
            message = f"{CO_DEVELOPED} is not followed by that person's {SIGNED}"
            wrong.append(_wrong(message, trailer))
        if same_person(trailer.value, patch.author):
            message = f"{CO_DEVELOPED} names the author, who is named by From"
            wrong.append(_wrong(message, trailer, Level.WARNING))
    signed = [trailer.value for trailer in found if trailer.has(SIGNED)]
    twice = [one for one, two in pairwise(sorted(signed)) if one == two]
    wrong += [
        _wrong(f"{SIGNED} stands twice", Trailer(SIGNED, one), Level.WARNING) for one in twice
    ]
    return wrong


def _misplaced(patch: Patch, found: Sequence[Trailer]) -> list[Diagnostic]:
    """Lines that look like tags and stand above the last paragraph, where no tool sees them."""
    counted = {" ".join(str(trailer).split()) for trailer in found}
    wrong = []
    message = without_notes(patch.message)
    for match in _TAG.finditer(message):
        line = message[match.start() :].partition("\n")[0]
        tag = Trailer(match["key"], line.partition(":")[2].strip())
        real = _FIXES.match(tag.value) if tag.has(FIXES) else _PERSON.match(tag.value)
        if real and " ".join(line.split()) not in counted:
            message = f"{tag.key} stands above the last paragraph, where no tool sees it"
            wrong.append(_wrong(message, tag, Level.WARNING))
    return wrong


def _fixes_tags(patch: Patch, found: Sequence[Trailer]) -> list[Trailer]:
    """The Fixes tags, also those above the last paragraph: the stable team's scripts see them."""
    tags = [trailer for trailer in found if trailer.has(FIXES)]
    values = (match[1].strip() for match in _ANY_FIXES.finditer(without_notes(patch.message)))
    known = {tag.value for tag in tags}
    return tags + [Trailer(FIXES, value) for value in values if value not in known]


def _fixes(git: Repo, patch: Patch, tags: Sequence[Trailer]) -> Check:
    if not tags:
        return Check("fixes", Outcome.SKIP, f"no {FIXES} tag")
    wrong: list[Diagnostic] = []
    unknown = ""
    for tag in tags:
        match = _FIXES.match(tag.value)
        if not match or len(match["commit"]) < SHORTEST:
            wrong.append(_wrong(f"{FIXES} is not of the form {_form(git, tag)}", tag))
        if commit := _COMMIT.match(tag.value):
            subject = match["subject"] if match else None
            problem, missing = _target(git, patch, commit["commit"], subject)
            wrong += [_wrong(problem, tag)] if problem else []
            unknown = unknown or missing
    if wrong:
        show = _show(patch)
        return Check("fixes", Outcome.FAIL, wrong[0].message, tuple(wrong), reproducer=show)
    return Check("fixes", Outcome.SKIP, unknown) if unknown else Check("fixes", Outcome.PASS)


def _form(git: Repo, tag: Trailer) -> str:
    """The tag as it should be, with the commit's own words if it is here."""
    match = _COMMIT.match(tag.value)
    found = match and git.resolve(match["commit"])
    if found:
        return f'{FIXES}: {found[:SHORTEST]} ("{git.text("show", "-s", "--format=%s", found)}")'
    return f'{FIXES}: {"123456789abc"[:SHORTEST]} ("subject of the commit")'


def _target(git: Repo, patch: Patch, commit: str, subject: str | None) -> tuple[str, str]:
    """What is wrong with the commit a tag names, or why it cannot be told."""
    found = git.resolve(commit)
    if found is None:
        if ends := _history_ends(git, patch):
            return "", f"{commit} cannot be looked up: {ends}"
        return f"{FIXES} names {commit}, which is no commit here", ""
    if subject is not None:
        real = git.text("show", "--no-patch", "--format=%s", found)
        if " ".join(subject.split()) != " ".join(real.split()):
            return f'{FIXES} names {commit}, whose subject is "{real}"', ""
    done = git.run("merge-base", "--is-ancestor", found, patch.parent, check=False)
    if done.ok:
        return "", ""
    if ends := _history_ends(git, patch):
        return "", f"whether {commit} came before cannot be told: {ends}"
    return f"{FIXES} names {commit}, which is not in the history of the patch", ""


def _history_ends(git: Repo, patch: Patch) -> str:
    """Why the history of a patch is not all here, empty when it is."""
    if git.text("rev-parse", "--is-shallow-repository") == "true":
        return "the repository is shallow (git fetch --unshallow)"
    # A tree imported from a release: its only commit without parents already has everything.
    roots = git.text("rev-list", "--max-parents=0", "--max-count=1", patch.parent)
    files = git.text("ls-tree", "--name-only", roots or patch.parent).split()
    whole = {"MAINTAINERS", "Makefile", "kernel"} <= set(files)
    few = int(git.text("rev-list", "--count", "--max-count=1000", patch.parent)) < 1000
    return "the tree was imported without its history" if whole and few else ""


def _wrong(message: str, trailer: Trailer, level: Level = Level.ERROR) -> Diagnostic:
    return Diagnostic(TOOL, level, message, code="trailer", detail=str(trailer))


def _show(patch: Patch) -> str:
    return f"git show --no-patch {shlex.quote(patch.commit)}"
