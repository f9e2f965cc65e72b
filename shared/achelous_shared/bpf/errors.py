"""What can go wrong between Python and the kernel's BPF subsystem."""

import errno
import os
from pathlib import Path

from achelous_shared.bpf.layout import MapLayout


class BpfError(OSError):
    """A call into libbpf or bpf(2) failed. `errno` is the kernel's; the text names the attempt."""

    def __init__(self, code: int, attempted: str, log: str = "") -> None:
        text = f"{attempted}: {os.strerror(code)}"
        super().__init__(code, f"{text}\n{log}" if log else text)


class MapLayoutChanged(BpfError):
    """A pinned map holds another layout than the object wants: its contents cannot be adopted."""

    def __init__(
        self, name: str, pinned: MapLayout, wanted: MapLayout, pin: Path, why: str = ""
    ) -> None:
        self.name = name
        self.pinned = pinned
        self.wanted = wanted
        super().__init__(
            errno.EEXIST,
            f"adopt map {name}: {pin} holds ({pinned}), the object wants ({wanted})"
            f"{why and ': '}{why}; start the release that made the pin, or detach this one's "
            f"packet path (which removes the pins), and lose what they hold",
        )


def check(result: int, attempted: str, log: str = "") -> int:
    """`result` of a libbpf call that returns -errno on failure, or BpfError."""
    if result < 0:
        raise BpfError(-result, attempted, log)
    return result
