"""Patches from mails: an mbox, a folder of patches, standard input, or a thread fetched by b4.

git's own programs take the mails apart and apply them (git-mailsplit(1), git-mailinfo(1),
git-apply(1) with --3way), but to an index alone: no work tree is needed, and none is touched.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.policy import compat32
from pathlib import Path

from kdrv.core.context import Context
from kdrv.core.errors import CommandFailed, SetupError, UsageError
from kdrv.core.process import Command, Completed
from kdrv.gate.git import Repo

B4_DEADLINE = 300.0
RECENT = 100
AS_IT_IS = "surrogateescape"
"""How bytes of a patch that are no UTF-8 pass through text and come out again the same."""
MARK = re.compile(r"\[[^\]]*?\b(?P<number>\d{1,6})/(?P<total>\d{1,6})[^\]]*\]")
BASE = re.compile(r"^base-commit: (?P<commit>[0-9a-f]{40,64})$", re.M)
_REFUSED = re.compile(r"^error: patch failed: (?P<file>.+):(?P<line>\d+)$", re.M)


@dataclass(frozen=True)
class Mail:
    """A mail with a patch. ``diff`` is what git-mailinfo found below the message; bytes that are
    no UTF-8 stand in it as surrogates."""

    author: str
    email: str
    date: str
    subject: str
    message: str
    diff: str
    message_id: str

    @property
    def order(self) -> int:
        """Its number in ``[PATCH 2/5]``, 0 without one."""
        mark = MARK.search(self.subject)
        return int(mark["number"]) if mark else 0

    @property
    def title(self) -> str:
        """The subject without what stands in brackets before it."""
        return re.sub(r"^(\s*\[[^\]]*\])+\s*", "", self.subject)


@dataclass(frozen=True)
class Refused:
    """The first patch that does not apply: its mail, its number, and why, hunk by hunk."""

    mail: Mail
    number: int
    left: int
    why: tuple[str, ...]


@dataclass(frozen=True)
class Applied:
    """What came of mails on a base. ``message_ids`` are by commit."""

    base: str
    tip: str
    message_ids: dict[str, str]
    refused: Refused | None = None


def fetch(ctx: Context, identifier: str) -> list[bytes]:
    """The cover letter and the patches of a thread, by message-id or change-id, through b4.

    Needs the network. Into files, for b4 tells what it does wherever it is read from.
    """
    program = shutil.which("b4")
    if program is None:
        raise SetupError(
            "b4 fetches threads by their message-id, and it is not installed",
            expected="b4, or the patches as an mbox",
            remedy="pip install b4",
        )
    with tempfile.TemporaryDirectory(prefix="kdrv-") as folder:
        command = Command((program, "am", "--no-cache", "-o", folder, "--", identifier))
        try:
            ctx.runner.run(command, deadline=B4_DEADLINE)
        except CommandFailed as error:
            raise SetupError(
                f"b4 cannot fetch {identifier}",
                expected="a message-id or change-id that lore.kernel.org knows, and a network",
                detail=error.detail,
                reproducer=command.shell(),
            ) from error
        return read_folder(Path(folder))


def read_folder(folder: Path) -> list[bytes]:
    """What the files of a folder of patches say, by their names; hidden ones are none of it."""
    files = (one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
    return [file.read_bytes() for file in sorted(files)]


def read_mails(
    git: Repo, sources: Sequence[bytes], name: str = "standard input"
) -> tuple[Mail, ...]:
    """The patches in the texts of files, mboxes or mails, together called ``name``; in order.

    Cover letters and replies carry no patch and are left out. Raises :class:`UsageError` when
    nothing is left.
    """
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
        mails = [
            mail
            for number, source in enumerate(sources)
            for mail in _split(git, source, Path(scratch, str(number)))
        ]
    patches = [mail for mail in mails if mail.diff.strip() and not mail.subject.startswith("Re:")]
    if not patches:
        raise UsageError(
            f"{name} holds no patch",
            expected="mails as git format-patch or b4 am write them",
            remedy="git format-patch --stdout BASE..TIP > series.mbox",
        )
    return tuple(sorted(patches, key=lambda mail: mail.order))


def named_base(sources: Sequence[bytes]) -> str | None:
    """The commit that ``base-commit:`` of git format-patch --base names."""
    found = BASE.search(b"\n".join(sources).decode(errors="replace"))
    return found["commit"] if found else None


def applied_before(git: Repo, mail: Mail) -> str | None:
    """The commit among the last of HEAD that makes the same changes (git-patch-id(1))."""
    wanted = git.run("patch-id", "--stable", input=mail.diff, check=False).output.split()
    recent = git.run("log", "-p", f"-{RECENT}", "--no-merges", "HEAD", check=False)
    known = git.run("patch-id", "--stable", input=recent.output, check=False).output
    ids = dict(line.split() for line in known.splitlines())
    return ids.get(wanted[0]) if wanted else None


def apply(git: Repo, base: str, mails: Sequence[Mail]) -> Applied:
    """Make commits of the mails, one on the other, until one does not apply."""
    message_ids: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="kdrv-") as scratch:
        repo = Repo(git.ctx, git.directory, None, Path(scratch, "index"))
        repo.run("read-tree", base)
        tip = base
        for number, mail in enumerate(mails, 1):
            done = repo.run("apply", "--cached", "--3way", "-", check=False, input=mail.diff)
            if not done.ok:
                repo.run("read-tree", tip)
                why = _why(repo, mail)
                refused = Refused(mail, number, len(mails) - number, why or done.tail())
                return Applied(base, tip, message_ids, refused)
            made = _commit(repo, tip, mail)
            if not made.ok:
                why = ("git makes no commit of this mail:", *made.tail(3))
                refused = Refused(mail, number, len(mails) - number, why)
                return Applied(base, tip, message_ids, refused)
            tip = made.output.strip()
            message_ids[tip] = mail.message_id
    return Applied(base, tip, message_ids)


def _commit(repo: Repo, parent: str, mail: Mail) -> Completed:
    # The same mails on the same base are the same commits: what was found of them is reused.
    env = {
        "GIT_AUTHOR_NAME": mail.author,
        "GIT_AUTHOR_EMAIL": mail.email,
        "GIT_AUTHOR_DATE": mail.date,
        "GIT_COMMITTER_NAME": mail.author,
        "GIT_COMMITTER_EMAIL": mail.email,
        "GIT_COMMITTER_DATE": mail.date,
    }
    tree = repo.text("write-tree")
    text = f"{mail.title}\n\n{mail.message}"
    words = ("commit-tree", tree, "-p", parent, "-F", "-")
    return repo.run(*words, env=env, input=text, check=False)


def _why(repo: Repo, mail: Mail) -> tuple[str, ...]:
    """The hunks that do not fit, each with its file, its line and its text."""
    plain = repo.run("apply", "--cached", "--check", "-", check=False, input=mail.diff)
    lines: list[str] = []
    for refused in _REFUSED.finditer(plain.output):
        lines.append(f"{refused['file']}:{refused['line']}: this hunk does not apply")
        lines += _hunk(mail.diff, refused["file"], int(refused["line"]))
    return tuple(lines) or plain.tail()


def _hunk(diff: str, file: str, line: int) -> list[str]:
    """The hunk of a file that begins at a line of it, as it stands in the patch."""
    parts = re.split(r"^(?=diff --git )", diff, flags=re.M)
    ours = next((part for part in parts if part.split("\n", 1)[0].endswith(f" b/{file}")), "")
    hunks = re.split(r"^(?=@@ )", ours, flags=re.M)[1:]
    hunk = next((one for one in hunks if one.startswith(f"@@ -{line},")), "")
    shown = hunk.encode(errors=AS_IT_IS).decode(errors="replace")
    return [f"  {text}" for text in shown.split("\n-- \n")[0].splitlines()]


def _split(git: Repo, source: bytes, scratch: Path) -> Iterator[Mail]:
    if not source.strip():
        return
    scratch.mkdir()
    mbox = scratch / "mbox"
    mbox.write_bytes(source)
    git.run("mailsplit", "-b", "--keep-cr", f"-o{scratch}", str(mbox))
    for file in sorted(scratch.glob("[0-9]*")):
        yield _mail(git, file, scratch)


def _mail(git: Repo, file: Path, scratch: Path) -> Mail:
    message, diff = scratch / "message", scratch / "diff"
    text = file.read_bytes()
    headers = BytesHeaderParser(policy=compat32).parsebytes(text)
    words = ("mailinfo", "--encoding=UTF-8", "-k", str(message), str(diff))
    done = git.run(*words, input=text.decode(errors=AS_IT_IS), check=False)
    fields = dict(line.split(": ", 1) for line in done.output.splitlines() if ": " in line)
    return Mail(
        author=fields.get("Author", ""),
        email=fields.get("Email", ""),
        date=fields.get("Date", ""),
        subject=fields.get("Subject", ""),
        message=message.read_text(errors="replace") if message.exists() else "",
        diff=diff.read_text(errors=AS_IT_IS) if diff.exists() else "",
        message_id=str(headers.get("Message-ID", "")).strip(),
    )
