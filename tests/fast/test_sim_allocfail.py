"""Failing the nth allocation of a call: what the agent is asked to do."""

import errno
import os
import random
import struct

import pytest

from kdrv.core.errors import UsageError
from kdrv.guest import bodies
from kdrv.guest.bodies import In, Result
from kdrv.guest.operations import Operations
from kdrv.guest.syscalls import Abi
from kdrv.sim.allocfail import MOST, FailingCalls, failing, number_of
from kdrv.sim.faults import Drawn, FaultKind


class Answer:
    """A call whose answer is here."""

    def __init__(self, value):
        self.result = value


class Plain(Operations):
    """Answers each request with ``results``, and with ``left`` of the number to fail."""

    def __init__(self, results, left=b"0\n"):
        super().__init__(None, 3, Abi("x86_64"), 1.0)
        self.results, self.left = results, left

    def _start(self, what, kind, body, decode, extra_seconds=0.0):
        self.body = body
        buffer = struct.pack("<Q", len(self.left)) + self.left.ljust(8, b"\0")
        answer = struct.pack(f"<{len(self.results)}q", *self.results) + buffer
        return Answer(lambda: decode(answer))


ARMED, DISARMED = [3, 403, 0, 1], [2, 1, 0]


@pytest.mark.parametrize(("left", "fired"), [(b"0\n", True), (b"4\n", False)])
def test_a_call_is_made_between_arming_and_disarming(left, fired):
    plain = Plain([*ARMED, 7, *DISARMED], left)
    calls = FailingCalls(plain, 5)
    assert calls.dup(9).result() == 7
    assert calls.fired is fired
    assert plain.body.count(b"/proc/thread-self/fail-nth\0") == 1
    assert struct.unpack_from("<I", plain.body)[0] == 8


def test_references_to_earlier_results_are_moved():
    plain = Plain([*ARMED, 4, 0, 0, *DISARMED])
    FailingCalls(plain, 1).load("/lib/x.ko").result()
    steps = [*plain.body.split(b"/lib/x.ko\0")]
    # finit_module's first argument is the result of step 4, the openat behind the four that arm.
    assert bodies._encode_argument(Result(4)) in steps[1]
    assert bodies._encode_argument(In(b"\0")) in steps[1]


def test_an_error_is_the_call_s_own():
    calls = FailingCalls(Plain([*ARMED, -errno.ENOMEM, *DISARMED]), 1)
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        calls.dup(9).result()
    assert calls.fired


def test_a_kernel_that_cannot_is_named():
    calls = FailingCalls(Plain([-errno.ENOENT, *[-errno.ECANCELED] * 7]), 1)
    with pytest.raises(UsageError, match="cannot fail"):
        calls.dup(9).result()


def test_numbers():
    with pytest.raises(UsageError, match="no allocation 0"):
        failing(None, 0)
    drawn = [number_of(Drawn(FaultKind.ALLOC_FAIL_NTH, 0, random.Random(i))) for i in range(200)]
    assert min(drawn) == 1
    assert max(drawn) <= MOST
    assert sum(drawn) / len(drawn) < MOST / 2
