"""The Debian mirror this machine uses, read from its own apt configuration.

python-apt knows apt's sources better, but it is a C extension tied to the system's Python and
absent from PyPI; the two formats (sources.list(5)) are a few lines each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kdrv.core.errors import SetupError

APT = Path("/etc/apt")


@dataclass(frozen=True)
class Source:
    """One entry of apt's sources: an archive's address, its suites, its keyring if named."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def sources(apt: Path = APT) -> tuple[Source, ...]:
    """All enabled binary package sources below ``apt``, in apt's order."""
    found: list[Source] = []
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for path in lists:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            found += _deb822(text)
        elif path.suffix == ".list":
            found += _one_line(text)
    return tuple(found)


def debian_mirror(apt: Path = APT) -> str:
    """The address of the Debian archive this machine installs from.

    Raises :class:`SetupError` when apt names none, as on a machine that is not Debian.
    """
    for source in sources(apt):
        # An archive that serves a Debian release's main suite; third-party archives have no
        # "main" next to suites of Debian's names, and the security archive is no full mirror.
        if (
            "main" in source.components
            and source.uri.rstrip("/").endswith("/debian")
            and not any(suite.endswith("-security") for suite in source.suites)
        ):
            return source.uri.rstrip("/")
    raise SetupError(
        f"apt's configuration below {apt} names no Debian archive",
        expected="a deb line or a .sources file for Debian's main archive",
        remedy="kdrv setup --mirror URL, or the machine's own tools: --toolchain host",
    )


def _one_line(text: str) -> list[Source]:
    pattern = re.compile(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+)$")
    matches = (pattern.match(line.split("#")[0].strip()) for line in text.splitlines())
    return [Source(m[1], (m[2],), tuple(m[3].split())) for m in matches if m]


def _deb822(text: str) -> list[Source]:
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        for uri in fields.get("uris", "").split():
            found.append(
                Source(
                    uri,
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                )
            )
    return found
