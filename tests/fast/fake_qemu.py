"""A program that behaves as QEMU does towards kdrv: console, agent and monitor, no guest.

Its conduct comes from the kernel's command line: ``do=WORD`` words, in order.
"""

import json
import os
import socket
import struct
import sys
import time


def option(name: str) -> list[str]:
    return [value for word, value in zip(sys.argv, sys.argv[1:], strict=False) if word == name]


def descriptor(wanted: str) -> int:
    for text in option("-add-fd") + option("-chardev"):
        fields = dict(field.split("=", 1) for field in text.split(",") if "=" in field)
        if wanted in (fields.get("id"), f"set{fields.get('set')}"):
            return int(fields["fd"])
    raise SystemExit(f"no {wanted}")


def greet(monitor: socket.socket) -> None:
    version = {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": ""}
    say(monitor, {"QMP": {"version": version, "capabilities": []}})


def say(monitor: socket.socket, what: object) -> None:
    monitor.sendall(json.dumps(what).encode() + b"\r\n")


def tell(monitor: socket.socket, event: str, **data: object) -> None:
    stamp = {"seconds": 1, "microseconds": 0}
    say(monitor, {"event": event, "data": data, "timestamp": stamp})


def answer(monitor: socket.socket, refuse: bool) -> None:
    asked = json.loads(monitor.recv(1 << 16))
    failed = refuse and asked["execute"] != "qmp_capabilities"
    error = {"error": {"class": "GenericError", "desc": "not today"}}
    said = error if failed else {"return": {"status": "running"}}
    say(monitor, {**said, **({"id": asked["id"]} if "id" in asked else {})})


def touch(offset: int) -> None:
    """Read four bytes of BAR 0 of the first device that somebody else serves."""
    served = next(json.loads(text) for text in option("-device") if text.startswith("{"))
    device = socket.socket(socket.AF_UNIX)
    device.connect(served["socket"]["path"])
    command = struct.pack("=HHIIIQIIH", 1, 10, 34, 0, 0, 4, 7, 2, 2)
    read = struct.pack("=HHIIIQII", 2, 9, 32, 0, 0, offset, 0, 4)
    for message in (command, read):
        device.sendall(message)
        answer = device.recv(100)
    agent.sendall(answer[-4:])


console, keys = descriptor("set1"), descriptor("set2")
agent = socket.socket(fileno=descriptor("agent"))
monitor = socket.socket(fileno=descriptor("monitor"))

for word in option("-append")[0].split():
    if not word.startswith("do="):
        continue
    action, _, detail = word[3:].partition(":")
    if action == "print":
        os.write(console, detail.encode() + b"\n")
    elif action == "flood":
        for number in range(int(detail)):
            os.write(console, b"%d\n" % number)
    elif action == "type":
        os.write(console, b"typed " + os.read(keys, 100))
    elif action == "echo":
        agent.sendall(agent.recv(100).upper())
    elif action == "greet":
        greet(monitor)
        answer(monitor, refuse=False)
    elif action in ("answer", "refuse"):
        answer(monitor, refuse=action == "refuse")
    elif action == "shutdown":
        tell(monitor, "SHUTDOWN", guest=True, reason=detail)
    elif action == "deleted":
        tell(monitor, "DEVICE_DELETED", device=detail, path="/machine/peripheral")
    elif action == "touch":
        touch(int(detail, 16))
    elif action == "complain":
        sys.stderr.write(f"qemu-system-x86_64: {detail}\n")
    elif action == "kill":
        os.kill(os.getpid(), int(detail))
    elif action == "exit":
        sys.exit(int(detail))
    elif action == "sleep":
        time.sleep(float(detail))
