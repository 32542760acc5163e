"""Where a patch's files would lie: no link out of the tree, no name that is not what it seems."""

from __future__ import annotations

import posixpath
import unicodedata

from kdrv.build.diagnostics import Diagnostic, Level
from kdrv.gate.churn import TOOL
from kdrv.gate.git import Repo
from kdrv.gate.result import Check, Outcome
from kdrv.gate.series import SYMLINK, Change, Patch, Status

SUBMODULE = "160000"
"""The mode of another repository's commit in a git tree (gitglossary(7), gitlink)."""

# Control characters, those that show nothing or turn the text around, and what was no UTF-8.
_ODD = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_REPLACED = "\N{REPLACEMENT CHARACTER}"
# What git itself refuses to check out (verify_path() in its read-cache.c).
_REFUSED = ("", ".", "..", ".git")


def judge_links(git: Repo, patch: Patch) -> Check:
    """Whether every file that a patch adds or changes stays inside the tree under a plain name."""
    found = []
    for change in patch.changes:
        if change.status is not Status.DELETED and (problem := _problem(git, patch, change)):
            shown = shown_path(change.path)
            found.append(Diagnostic(TOOL, Level.ERROR, problem, file=shown, code="link"))
    if not found:
        return Check("links", Outcome.PASS)
    return Check(
        "links",
        Outcome.FAIL,
        f"{found[0].file}: {found[0].message}",
        tuple(found),
        reproducer=f"git show --raw --format=%h {patch.commit}",
    )


def shown_path(path: str) -> str:
    """A path or a link's target for people: what is odd in it as an escape."""
    return "".join(f"\\u{ord(one):04x}" if _is_odd(one) else one for one in path)


def _is_odd(character: str) -> bool:
    return character == _REPLACED or unicodedata.category(character) in _ODD


def _problem(git: Repo, patch: Patch, change: Change) -> str:
    if any(map(_is_odd, change.path)):
        return "a control or invisible character in the name of a file"
    if any(part.lower() in _REFUSED for part in change.path.split("/")):
        return "a name of a file that git would not check out"
    if change.mode == SUBMODULE:
        return "a submodule: another repository inside the tree"
    if change.mode != SYMLINK:
        return ""
    target = git.blob(patch.commit, change.path)
    if target is None:
        return "a symbolic link whose target git cannot tell"
    if any(map(_is_odd, target)):
        return "a symbolic link with a control or invisible character in its target"
    if target.startswith("/"):
        return f"a symbolic link to an absolute path, {target}"
    place = posixpath.normpath(posixpath.join(posixpath.dirname(change.path), target))
    if place == ".." or place.startswith("../"):
        return f"a symbolic link out of the tree, to {target}"
    names = target.split("/")
    plain = len(names) - names[::-1].index("..") if ".." in names else 0
    if names[:plain].count("..") < plain:
        # Through a link of the tree, "name/.." is not where it seems to be.
        return f"a symbolic link that goes up after going down, to {target}"
    if ".git" in place.lower().split("/"):
        return f"a symbolic link into git's own files, to {target}"
    return ""
