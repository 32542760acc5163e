"""The doctor: what is there, what a kernel tree needs, and the command that mends each lack.

It looks and never changes anything: nothing is downloaded, installed or provisioned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

from kdrv.core.context import Context
from kdrv.toolchain import debian, doctor_machine, host
from kdrv.toolchain.base import SOURCE, Bind, Toolchain
from kdrv.toolchain.doctor_finding import Diagnosis, Finding, Section, State
from kdrv.toolchain.doctor_machine import KvmAnswer
from kdrv.toolchain.doctor_remedy import OTHER_PROVIDER, HostRemedies, debian_remedy
from kdrv.toolchain.doctor_tools import Mend, tool_findings
from kdrv.toolchain.requirements import RUST_SCRIPT, Requirements
from kdrv.toolchain.select import AUTO, RUST_ENVIRONMENT

DEBIAN = debian.DebianToolchain.name
HOST = host.HostTools.name
_DEADLINE = 60.0


def diagnose(
    ctx: Context,
    tree: Path | None,
    *,
    wanted: str = AUTO,
    kvm: Callable[[Toolchain], KvmAnswer] | None = None,
) -> Diagnosis:
    """Look at the machine and at the providers ``wanted`` allows (``auto``: both).

    ``tree`` is the kernel tree to satisfy, ``None`` when its sources are not there yet: then every
    version will do. ``kvm`` boots something under KVM with a toolchain's QEMU.
    """
    sandbox = doctor_machine.bubblewrap(ctx.runner)
    disk = doctor_machine.disk(ctx.cache)
    if sandbox.state is State.MISSING:
        # Without the sandbox no tool can be asked anything.
        return Diagnosis((Section("machine", (sandbox, disk)),), "", ok=False)
    surveys = {DEBIAN: _debian, HOST: _host}
    surveyed = {
        name: survey(ctx, tree) for name, survey in surveys.items() if wanted in (AUTO, name)
    }
    # The same order of preference as kdrv.toolchain.select.
    usable = [name for name in (HOST, DEBIAN) if name in surveyed and surveyed[name].complete]
    provider = usable[0] if usable else ""
    toolchain = surveyed[provider].toolchain if provider else None
    probe = partial(kvm, toolchain) if kvm and toolchain else None
    machine = Section("machine", (sandbox, disk, _sources(tree), doctor_machine.kvm(probe)))
    toolchains = (
        Section(f"toolchain {name}", survey.findings, not provider or name == provider)
        for name, survey in surveyed.items()
    )
    ok = bool(provider) and machine.complete
    return Diagnosis((machine, *toolchains), provider, ok)


@dataclass(frozen=True)
class _Survey:
    """What a provider has; its toolchain, if it is there already."""

    findings: tuple[Finding, ...]
    toolchain: Toolchain | None

    @property
    def complete(self) -> bool:
        return Section("", self.findings).complete


def _sources(tree: Path | None) -> Finding:
    if tree:
        return Finding("kernel sources", str(tree), "a kernel tree", State.OK)
    return Finding("kernel sources", "", "a kernel tree", State.WARNING, "kdrv setup")


def _debian(ctx: Context, tree: Path | None) -> _Survey:
    root = debian.find(ctx)
    if root is None:
        needed = f"Debian {debian.SUITE}; kdrv makes it by itself when first needed"
        missing = Finding("root", "", needed, State.WARNING, OTHER_PROVIDER)
        makers = doctor_machine.root_makers()
        return _Survey((*makers, doctor_machine.mirror(ctx.runner, urgent=True), missing), None)
    there = Finding("root", str(root.root), f"Debian {debian.SUITE}", State.OK)
    mirror = doctor_machine.mirror(ctx.runner, urgent=False)
    return _Survey((there, mirror, *_tools(ctx, tree, root, debian_remedy)), root)


def _host(ctx: Context, tree: Path | None) -> _Survey:
    tools = host.find(ctx)
    return _Survey(_tools(ctx, tree, tools, None), tools)


def _tools(
    ctx: Context, tree: Path | None, toolchain: Toolchain, mend: Mend | None
) -> tuple[Finding, ...]:
    wanted = Requirements(rust=True)
    if tree:
        wanted = Requirements.of_tree(tree, toolchain, ctx.runner)
    mend = mend or HostRemedies.of_machine(wanted, ctx.runner)
    findings = tool_findings(toolchain, ctx.runner, wanted, mend)
    if tree is None or not wanted.rust:
        return findings
    return (*findings, _rust_available(ctx, tree, toolchain))


def _rust_available(ctx: Context, tree: Path, toolchain: Toolchain) -> Finding:
    """What the tree's own script says of the Rust tools together: the last word, in its words."""
    needed = f"what {RUST_SCRIPT} accepts"
    command = toolchain.command(
        ("sh", f"{SOURCE}/{RUST_SCRIPT}"), binds=[Bind(tree, SOURCE)], env=RUST_ENVIRONMENT
    )
    done = ctx.runner.run(command, deadline=_DEADLINE, check=False)
    lines = (line.removeprefix("***").strip() for line in done.output.splitlines())
    said = " ".join(takewhile(lambda line: not line.startswith("Please see"), filter(None, lines)))
    if done.ok and not said:
        return Finding("Rust", "available", needed, State.OK)
    remedy = "mend the Rust tools above" if toolchain.name == DEBIAN else OTHER_PROVIDER
    return Finding("Rust", said, needed, State.WARNING if done.ok else State.MISSING, remedy)
