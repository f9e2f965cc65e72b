"""What can go wrong between Python and the kernel's BPF subsystem."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path


class BpfError(OSError):
    """A call into libbpf or bpf(2) failed. `errno` is the kernel's; the text names the attempt."""

    def __init__(self, code: int, attempted: str, log: str = "") -> None:
        text = f"{attempted}: {os.strerror(code)}"
        super().__init__(code, f"{text}\n{log}" if log else text)


@dataclass(frozen=True, slots=True)
class MapLayout:
    """What must be equal for two maps to hold the same bytes. Sizes in bytes, flags BPF_F_*."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int

    def __str__(self) -> str:
        return (
            f"type {self.type}, key {self.key_size} B, value {self.value_size} B, "
            f"{self.max_entries} entries, flags {self.flags:#x}"
        )


class MapLayoutChanged(BpfError):  # noqa: N818 - the event, as its handlers name it
    """A pinned map holds another layout than the object wants: its contents cannot be adopted."""

    def __init__(self, name: str, pinned: MapLayout, wanted: MapLayout, pin: Path) -> None:
        self.name = name
        self.pinned = pinned
        self.wanted = wanted
        super().__init__(
            errno.EEXIST,
            f"adopt map {name}: {pin} holds ({pinned}), the object wants ({wanted}); give the "
            f"changed map a new name, or remove the pin and lose its contents",
        )


def check(result: int, attempted: str, log: str = "") -> int:
    """`result` of a libbpf call that returns -errno on failure, or BpfError."""
    if result < 0:
        raise BpfError(-result, attempted, log)
    return result
