"""Which detectors live: reading their signs, and removing what was pulled out."""

from types import SimpleNamespace

import pytest

from kdrv.machine.console import Console
from kdrv.sim import alive, removal
from kdrv.sim.alive import Detector, Modules, provoke, standing, write_modules

GOOD = {
    "/proc/lockdep_stats": " lock-classes:  812 [max: 8192]\n debug_locks:        1\n",
    "/sys/kernel/debug/dma-api/disabled": "N\n",
}


class Guest:
    """Files, a log, and a console that reports when a module is loaded."""

    def __init__(self, files, log=(), says=()):
        self.files, self.log, self.says = dict(files), list(log), says
        self.console, self.written, self.loaded = Console(), [], []

    def read_text(self, path):
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[path]

    def write_text(self, path, text):
        if path in self.files or "kmemleak" not in path:
            self.written.append((path, text))
        if path.endswith("gone/remove"):
            raise FileNotFoundError(path)

    def dmesg(self):
        return self.log

    def load(self, path, params=""):
        self.loaded.append((path, params))
        for line in self.says:
            self.console.feed(f"{line}\n".encode())

    def sleep(self, seconds):
        self.slept = seconds


def signs(guest):
    return {sign.detector: sign for sign in standing(guest)}


def test_a_kernel_in_which_all_is_well():
    found = signs(Guest(GOOD, ["[0.0] kasan: KernelAddressSanitizer initialized (generic)"]))
    assert all(sign.alive for sign in found.values())
    assert found[Detector.LOCKDEP].evidence == "/proc/lockdep_stats says debug_locks: 1"


@pytest.mark.parametrize(
    ("path", "text", "detector"),
    [
        ("/proc/lockdep_stats", " debug_locks: 0\n", Detector.LOCKDEP),
        ("/proc/lockdep_stats", "", Detector.LOCKDEP),
        ("/sys/kernel/debug/dma-api/disabled", "Y\n", Detector.DMA_DEBUG),
    ],
)
def test_a_detector_that_has_turned_itself_off(path, text, detector):
    assert not signs(Guest({**GOOD, path: text}))[detector].alive


def test_a_kernel_without_detectors():
    found = signs(Guest({}))
    assert not found[Detector.LOCKDEP].alive
    assert not found[Detector.KASAN].alive
    assert "there is no /proc/lockdep_stats" in str(found[Detector.LOCKDEP])


MODULES = Modules("/lib/c.ko", "/lib/rust.ko")


@pytest.mark.parametrize("detector", alive._REPORTS)
def test_a_report_is_believed_and_silence_is_not(detector):
    report = alive._REPORTS[detector]
    guest = Guest({}, says=["[1.0] something", f"[1.0] {report.words} in selftest"])
    sign = provoke(detector, guest, guest.console, MODULES)
    assert guest.loaded == [("/lib/c.ko", f"how={report.how}")]
    assert (sign.alive, sign.detector) == (True, detector)
    assert report.words in sign.evidence
    silent = Guest({}, says=["[1.0] something"])
    assert not provoke(detector, silent, silent.console, MODULES).alive


def test_a_leak_must_be_found():
    for text, found in (("unreferenced object 0x12 (size 256):\n  comm\n", True), ("", False)):
        guest = Guest({alive.KMEMLEAK: text})
        assert provoke(Detector.KMEMLEAK, guest, guest.console, MODULES).alive is found
        assert [word for _, word in guest.written] == ["scan", "clear", "scan", "scan"]
        assert guest.slept > 5


def test_the_modules_are_written(tmp_path):
    write_modules(tmp_path)
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(files) == {"Kbuild", "kdrv_selftest.c", "kdrv_selftest_rust.rs"}
    assert all(f'"{report.how}"' in files["kdrv_selftest.c"] for report in alive._REPORTS.values())


def test_only_what_was_pulled_out_is_removed():
    guest = Guest({})
    places = {"edu": "0000:00:00.0", "gone": "gone", "testdev": "0000:00:02.0"}
    machine = SimpleNamespace(pulled=("edu", "gone"), addresses=places)
    assert removal.announce(machine, guest) == ("edu",)
    assert guest.written[0] == ("/sys/bus/pci/devices/0000:00:00.0/remove", "1")
    assert not any("00:02" in path for path, _ in guest.written)
