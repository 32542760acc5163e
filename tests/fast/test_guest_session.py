"""The guest as tests see it, against a fake agent: deadlines, deaths, orders of calls."""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Callable

import pytest

from kdrv.core.errors import DeadlineExceeded, SetupError, UsageError
from kdrv.guest import wire
from kdrv.guest.errors import GuestCallDied, GuestGone, GuestProgramFailed, GuestSilent
from kdrv.guest.session import Guest
from kdrv.guest.wire import Kind, Message
from kdrv.machine.console import Console
from kdrv.machine.contract import MachineEnded
from tests.fast.guest_fakes import HELLO, FakeAgent, decode_calls, outcome

Answerer = Callable[[Message], bytes | None]
INSPECTED = struct.pack("<qIIII", 0, 29, 1, 0, 1) + b"".join(
    struct.pack("<I", len(text)) + text
    for text in (b"29 (kdrv-session) D 1", b"16 0x3", b"io", b"[<0>] io+0xc1/0x170 [kt]\n")
)


class FakeMachine:
    """As much of a machine as an error wants to know."""

    alive = True

    def __init__(self, agent: FakeAgent) -> None:
        self.channel = agent
        self.console = Console()

    def clock(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def describe(self) -> str:
        return "fake"

    def diagnose(self) -> tuple[str, ...]:
        return ("RIP is in spin_forever",)


def answering(answer: Answerer) -> Callable[[Message], Message | None]:
    """Answers CALLs by ``answer``; None is silence. Everything else is agreed to."""

    def reply(message: Message) -> Message | None:
        body: bytes | None = struct.pack("<q", 1 if message.kind == Kind.SPAWN else 0)
        if message.kind == Kind.INSPECT:
            body = INSPECTED
        elif message.kind >= Kind.CALL:
            body = answer(message)
        if body is None:
            return None
        return Message(Kind.ANSWER, message.session, message.call, body)

    return reply


def guest_of(answer: Answerer, **options: object) -> tuple[Guest, FakeAgent, FakeMachine]:
    agent = FakeAgent(answering(answer), **options)  # type: ignore[arg-type]
    machine = FakeMachine(agent)
    return Guest(agent, machine=machine, clock=agent.clock), agent, machine


def test_the_greeting_tells_kernel_and_machine() -> None:
    guest, _, _ = guest_of(lambda message: None)
    assert (guest.hello.machine, guest.hello.release) == ("x86_64", "7.3.4")


def test_a_read_is_one_system_call() -> None:
    guest, agent, _ = guest_of(lambda message: outcome(3, buffers=[b"abc"]))
    with_descriptor = guest.begin.read(5, 10)
    assert with_descriptor.result() == b"abc"
    (call,) = decode_calls(agent.heard[0].body)
    assert (call.number, call.args) == (0, [5, 10, 10])


def test_numbers_are_those_of_the_guest() -> None:
    guest, agent, _ = guest_of(lambda message: outcome(0, buffers=[b""]), machine="aarch64")
    guest.begin.read(5, 10).result()
    assert decode_calls(agent.heard[0].body)[0].number == 63


def test_a_system_call_that_fails_is_an_oserror_with_its_path() -> None:
    guest, _, _ = guest_of(lambda message: outcome(-errno.ENOENT))
    with pytest.raises(FileNotFoundError) as caught:
        guest.open("/dev/nothing")
    assert caught.value.filename == "/dev/nothing"


def test_the_first_failure_of_several_calls_counts() -> None:
    guest, _, _ = guest_of(lambda message: outcome(3, -errno.EACCES, 0, buffers=[b""]))
    with pytest.raises(PermissionError):
        guest.read_text("/sys/x")


def test_a_path_with_a_nul_never_reaches_the_guest() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    with pytest.raises(ValueError, match="null byte"):
        guest.open("/dev/\0x")
    assert agent.heard == []


@pytest.mark.parametrize("path", ["/tmp/größe", b"/tmp/\xff\xfe"])
def test_paths_are_text_or_bytes(path: str | bytes) -> None:
    guest, agent, _ = guest_of(lambda message: outcome(0))
    guest.unlink(path)
    assert decode_calls(agent.heard[0].body)[0].args[1] == os.fsencode(path) + b"\0"


def test_a_call_that_hangs_shows_where() -> None:
    guest, agent, machine = guest_of(lambda message: None)
    machine.console.feed(b"something odd\n")
    with pytest.raises(GuestSilent) as caught:
        guest.open("/dev/x", timeout=7)
    silent = caught.value
    assert isinstance(silent, DeadlineExceeded)
    assert silent.inspection is not None
    assert silent.inspection.state == "D"
    assert "hangs in the kernel" in silent.message
    assert "  [<0>] io+0xc1/0x170 [kt]" in silent.detail
    assert silent.console == ("something odd",)
    assert silent.diagnosis == ()
    assert agent.now == 7


def test_a_guest_that_hangs_is_told_apart() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    agent.answer = lambda message: None
    with pytest.raises(GuestSilent) as caught:
        guest.uname()
    assert caught.value.inspection is None
    assert "the guest hangs" in caught.value.message
    assert caught.value.diagnosis == ("RIP is in spin_forever",)


def test_after_a_hang_the_session_gets_a_new_process() -> None:
    answers = iter([None, outcome(0)])
    guest, agent, _ = guest_of(lambda message: next(answers))
    with pytest.raises(GuestSilent):
        guest.unlink("/x")
    guest.unlink("/y")
    kinds = [message.kind for message in agent.heard]
    assert kinds == [Kind.CALL, Kind.INSPECT, Kind.RESET, Kind.CALL]


def test_an_answer_after_the_deadline_is_still_an_answer() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    call = guest.begin.unlink("/x")
    with pytest.raises(GuestSilent):
        call.result(timeout=1)
    agent.say(Message(Kind.ANSWER, 0, agent.heard[0].call, outcome(0)))
    assert call.done()
    call.result()
    guest.begin.unlink("/y")
    assert Kind.RESET not in [message.kind for message in agent.heard]


def test_a_session_does_one_call_at_a_time() -> None:
    guest, _, _ = guest_of(lambda message: None)
    call = guest.begin.sleep(5)
    assert not call.done()
    with pytest.raises(UsageError) as caught:
        guest.unlink("/x")
    assert "sleep(5) is under way" in caught.value.message


def test_another_session_can_work_meanwhile() -> None:
    guest, agent, _ = guest_of(lambda message: outcome(0) if message.session else None)
    sleeping = guest.begin.sleep(5)
    with guest.session() as other:
        other.unlink("/x")
        assert other.number == 1
    assert not sleeping.done()
    assert agent.heard[-1].kind == Kind.CLOSE


def test_a_sleep_has_its_own_time_besides_the_deadline() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    guest.timeout = 2
    with pytest.raises(GuestSilent):
        guest.sleep(100)
    assert 102 <= agent.now < 110


def test_a_machine_that_ends_ends_the_call() -> None:
    guest, agent, machine = guest_of(lambda message: None)
    machine.console.feed(b"Kernel panic\n")
    call = guest.begin.unlink("/x")
    agent.ended = MachineEnded("killed by signal 9", -9)
    with pytest.raises(GuestGone) as caught:
        call.result()
    assert caught.value.reason == "killed by signal 9"
    assert caught.value.console == ("Kernel panic",)
    with pytest.raises(GuestGone):
        guest.uname()


def test_answers_before_the_end_count() -> None:
    guest, agent, _ = guest_of(lambda message: outcome(0))
    call = guest.begin.unlink("/x")
    agent.ended = MachineEnded("power-off", 0)
    call.result()


def test_a_process_that_dies_tells_what_the_kernel_said_meanwhile() -> None:
    guest, agent, machine = guest_of(lambda message: None)
    machine.console.feed(b"before\n")
    call = guest.begin.ioctl(3, 1)
    machine.console.feed(b"BUG: kernel NULL pointer dereference\n")
    agent.say(Message(Kind.DIED, 0, agent.heard[0].call, struct.pack("<q", 9)))
    with pytest.raises(GuestCallDied) as caught:
        call.result()
    assert caught.value.signal == 9
    assert "SIGKILL" in caught.value.message
    assert caught.value.console == ("BUG: kernel NULL pointer dereference",)


def test_a_refusal_is_an_oserror() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    agent.answer = lambda message: Message(
        Kind.REFUSED, 0, message.call, struct.pack("<q", -errno.ENOSYS)
    )
    with pytest.raises(OSError, match="refused uname") as caught:
        guest.uname()
    assert caught.value.errno == errno.ENOSYS


def test_a_guest_that_never_greets_is_silent() -> None:
    agent = FakeAgent(lambda message: None, greets=False)
    with pytest.raises(GuestSilent, match="the start of the guest"):
        Guest(agent, boot_timeout=3, clock=agent.clock)
    assert agent.now == 3


def test_a_guest_that_dies_before_it_greets_is_gone() -> None:
    agent = FakeAgent(lambda message: None, greets=False, ended=MachineEnded("reset", 0))
    with pytest.raises(GuestGone, match="reset"):
        Guest(agent, clock=agent.clock)


def test_an_agent_of_another_version_is_named() -> None:
    agent = FakeAgent(lambda message: None, greets=False)
    body = HELLO.replace(struct.pack("<I", wire.VERSION), struct.pack("<I", 99), 1)
    agent.say(Message(Kind.HELLO, 0, 0, body + b"x86_64\0007.3\0#1\0"))
    with pytest.raises(SetupError, match="version 99"):
        Guest(agent, clock=agent.clock)


def test_power_off_returns_when_the_machine_has_ended() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    agree = agent.answer

    def answer(message: Message) -> Message | None:
        if message.kind == Kind.CALL:
            agent.ended = MachineEnded("power-off", 0)
        return agree(message)

    agent.answer = answer
    guest.power_off()
    assert [call.number for call in decode_calls(agent.heard[-1].body)] == [162, 169]
    assert agent.heard[-1].session == 1


def test_a_machine_that_ignores_power_off_is_silent() -> None:
    guest, _, _ = guest_of(lambda message: None)
    with pytest.raises(GuestSilent, match="power-off"):
        guest.power_off(timeout=1)


def run_end(status: int, flags: int = 0, output: bytes = b"", error: int = 0) -> bytes:
    return struct.pack("<qII", -error, status, flags) + output


def test_programs_end_with_status_signal_or_not_at_all() -> None:
    ends = iter(
        [
            run_end(3 << 8, output=b"out\n"),
            run_end(9, flags=2),
            run_end(9, flags=1, output=b"last words\n"),
            run_end(0, error=errno.EACCES),
            run_end(1 << 8, output=b"why\n"),
        ]
    )
    guest, _, _ = guest_of(lambda message: next(ends))
    program = guest.run(["false"])
    assert (program.status, program.output, program.ok) == (3, "out\n", False)
    program = guest.run(["yes"])
    assert (program.status, program.truncated) == (-9, True)
    with pytest.raises(DeadlineExceeded) as late:
        guest.run(["sleep", "9"], timeout=1)
    assert late.value.detail == ("last words",)
    with pytest.raises(PermissionError):
        guest.run(["/etc/passwd"])
    with pytest.raises(GuestProgramFailed) as failed:
        guest.shell("why", check=True)
    assert failed.value.detail == ("why",)


def test_a_short_write_of_a_file_is_an_error() -> None:
    guest, _, _ = guest_of(lambda message: outcome(3, 2, 0))
    with pytest.raises(OSError, match="Input/output error"):
        guest.write_text("/tmp/x", "four")


def test_an_ioctl_takes_a_number_or_bytes() -> None:
    answers = iter([outcome(42), outcome(0, buffers=[b"new!"])])
    guest, _, _ = guest_of(lambda message: next(answers))
    assert guest.begin.ioctl(3, 1, 41).result() == 42
    assert guest.begin.ioctl(3, 2, b"old!").result() == b"new!"


def test_the_log_comes_without_levels() -> None:
    answers = iter([outcome(100), outcome(30, buffers=[b"<6>[ 1.0] one\n<12>two <3>\nbare\n"])])
    guest, _, _ = guest_of(lambda message: next(answers))
    assert guest.dmesg() == ["[ 1.0] one", "two <3>", "bare"]


def test_modules_are_what_proc_says() -> None:
    text = b"a 16384 2 b,c, Live 0x0 (O)\nb 8192 0 - Loading 0x0\n"
    guest, _, _ = guest_of(lambda message: outcome(3, len(text), 0, buffers=[text]))
    one, two = guest.modules()
    assert (one.name, one.size, one.references, one.users) == ("a", 16384, 2, ("b", "c"))
    assert (two.users, two.state) == ((), "Loading")


def test_rest_of_a_long_answer_is_asked_for() -> None:
    guest, agent, _ = guest_of(lambda message: None)
    call = guest.begin.read(3, 100)
    frames = bytearray(wire.encode(Message(Kind.ANSWER, 0, agent.heard[0].call, bytes(40000))))
    frames[15] |= wire.Flag.ASK
    agent._outgoing += frames
    assert not guest.begin.link.wait(lambda: len(agent.heard) > 5, 1)
    assert agent.heard[-1].kind == Kind.GO
    assert agent.heard[-1].call == agent.heard[0].call
    assert call.done()


def test_two_threads_share_the_channel() -> None:
    guest, agent, _ = guest_of(lambda message: outcome(message.session, buffers=[]))
    results: list[int] = []
    with guest.session() as other:
        sessions = [guest, other]
        threads = [
            threading.Thread(
                target=lambda session=session: results.extend(
                    session.begin.getpid().result() for _ in range(50)
                )
            )
            for session in sessions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(results) == [0] * 50 + [1] * 50
    assert agent.ended is None


def test_a_guest_that_takes_no_bytes_is_silent() -> None:
    guest, agent, _ = guest_of(lambda message: None)

    def full(message: Message) -> Message | None:
        agent.now += 30
        raise DeadlineExceeded("the guest took no more bytes")

    agent.answer = full
    with pytest.raises(GuestSilent, match="within 30 s") as caught:
        guest.write_bytes("/tmp/x", bytes(100))
    assert caught.value.diagnosis == ("RIP is in spin_forever",)


def test_a_machine_with_a_clock_is_timed_by_it() -> None:
    agent = FakeAgent(answering(lambda message: None))
    machine = FakeMachine(agent)
    machine.clock = agent.clock  # type: ignore[attr-defined]
    guest = Guest.of(machine)
    with pytest.raises(GuestSilent):
        guest.uname()
    assert agent.now == 30


def test_leaving_a_file_of_a_lost_guest_does_not_wait_again() -> None:
    guest, agent, _ = guest_of(lambda message: outcome(3))
    with pytest.raises(GuestSilent, match="sleep"), guest.session(), guest.open("/dev/x") as file:
        agent.answer = lambda message: None
        guest.sleep(0)
    assert agent.now < 40
    assert not file.closed
    agent.answer = answering(lambda message: outcome(3))
    guest.reset()
    guest.begin.fsync(3).result()
    with guest.open("/dev/x") as file:
        pass
    assert file.closed
