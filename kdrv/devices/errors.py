"""How a device model's run goes wrong."""

from __future__ import annotations

import traceback
from enum import StrEnum

from kdrv.core.errors import WorkFailed


class Blame(StrEnum):
    """Whose bug a :class:`DeviceFault` is."""

    DRIVER = "driver"
    MODEL = "model"


class Misuse(Exception):
    """The driver asked the device for what cannot be; the text says what, in words.

    Raised by a model or by the machine below it: an access outside a BAR or of illegal width, DMA
    outside memory, a command the device's document forbids.
    """


class DeviceFault(WorkFailed):
    """A run ended inside a device model.

    ``blame`` says whose bug it is: the driver's (:class:`Misuse`) or the model's own (any other
    exception). ``device`` is the device's name, ``doing`` the access or event the model was
    handling, ``at`` the time in nanoseconds, ``trace`` the model's Python traceback.
    """

    def __init__(self, device: str, doing: str, at: int, cause: BaseException) -> None:
        self.device = device
        self.doing = doing
        self.at = at
        self.cause = cause
        self.blame = Blame.DRIVER if isinstance(cause, Misuse) else Blame.MODEL
        self.trace = tuple("".join(traceback.format_exception(cause)).splitlines())
        seconds = f"{at / 1e9:.9f} s"
        if self.blame is Blame.DRIVER:
            message = f"{device}: the driver asked for what cannot be: {cause}"
            expected = "accesses and commands that the device's document allows"
            remedy = f"mend the driver's {doing}"
            detail: tuple[str, ...] = (f"at {seconds}, during {doing}",)
        else:
            message = f"{device}: the device model raised {type(cause).__name__}: {cause}"
            expected = "a model that answers every access"
            remedy = "mend the model at the last line of its traceback"
            detail = (f"at {seconds}, during {doing}", *self.trace)
        super().__init__(message, expected=expected, remedy=remedy, detail=detail)
