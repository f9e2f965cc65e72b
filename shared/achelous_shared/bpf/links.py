"""Attaching a tc program to a device so that the attachment outlives its process."""

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from achelous_shared.bpf.clsact import attach_clsact
from achelous_shared.bpf.errors import check
from achelous_shared.bpf.kernel import BPF_TCX_EGRESS, BPF_TCX_INGRESS, tcx_link_info
from achelous_shared.bpf.libbpf import libbpf
from achelous_shared.bpf.programs import BpfProgram

_NO_DEVICE: Final = 0x7FFFFFFF


class Link(Protocol):
    """One program on one device. `ifindex` is of the namespace in which it was attached."""

    @property
    def fd(self) -> int:
        """The link's fd; -1 with clsact, which has none, and after close."""

    @property
    def ifindex(self) -> int: ...

    def detach(self) -> None:
        """End the attachment at once, and remove its pin."""

    def close(self) -> None:
        """Let go of it: a pinned attachment goes on, another ends."""


def attach_tcx(
    program: BpfProgram, ifindex: int, *, egress: bool = False, pin: Path | None
) -> Link:
    """Run `program` on what device `ifindex` of this thread's namespace receives (or sends).

    Where `pin` holds a link to that device and direction, the program is replaced in it, so that
    no packet passes without one. A pinned link to a device that is gone, or to another one, is
    removed and made anew. Without TCX in the kernel a clsact filter does the same; it lives with
    the device, and `pin` only says that it shall outlive this process.
    """
    if not has_tcx():
        return attach_clsact(program, ifindex, egress=egress, keep=pin is not None)
    where = BPF_TCX_EGRESS if egress else BPF_TCX_INGRESS
    if pin is not None and pin.exists():
        pinned = check(libbpf().bpf_obj_get(os.fsencode(pin)), f"open the pinned link {pin}")
        link = TcxLink(pinned, ifindex, pin)
        if link.replace(program, where):
            return link
        link.detach()
    fd = check(
        libbpf().bpf_link_create(program.fd, ifindex, where, None),
        f"attach program {program.name} to device {ifindex}",
    )
    link = TcxLink(fd, ifindex, pin)
    if pin is not None:
        link.make_pin(pin)
    return link


def replace_pinned(program: BpfProgram, pin: Path) -> None:
    """Put `program` in place of what the link at `pin` runs; nothing if its device is gone."""
    fd = check(libbpf().bpf_obj_get(os.fsencode(pin)), f"open the pinned link {pin}")
    try:
        result: int = libbpf().bpf_link_update(fd, program.fd, None)
    finally:
        os.close(fd)
    if result != -errno.ENOLINK:
        check(result, f"replace the program of link {pin} by {program.name}")


def has_tcx() -> bool:
    """Whether this kernel knows TCX (6.6 and later, if so configured)."""
    count = ctypes.c_uint32(0)
    # Asked about a device that nobody has: ENODEV where the question is understood.
    result: int = libbpf().bpf_prog_query(
        _NO_DEVICE, BPF_TCX_INGRESS, 0, None, None, ctypes.byref(count)
    )
    return result == -errno.ENODEV


@dataclass(slots=True)
class TcxLink:
    """A bpf link of TCX."""

    fd: int
    ifindex: int
    pin: Path | None

    def replace(self, program: BpfProgram, where: int) -> bool:
        """Put `program` in place of what runs; False if the link is not to this device any more."""
        info = tcx_link_info(self.fd)
        if (info.ifindex, info.attach_type) != (self.ifindex, where):
            return False
        result: int = libbpf().bpf_link_update(self.fd, program.fd, None)
        if result == -errno.ENOLINK:  # the device went since we asked
            return False
        check(result, f"replace the program of link {self.pin} by {program.name}")
        return True

    def make_pin(self, pin: Path) -> None:
        """Pin a new link; on failure it is not left attached."""
        try:
            pin.parent.mkdir(parents=True, exist_ok=True)
            check(
                libbpf().bpf_obj_pin(self.fd, os.fsencode(pin)),
                f"pin a link at {pin} (bpf filesystem, no dot in names)",
            )
        except OSError:
            self.close()
            raise

    def detach(self) -> None:
        """See Link."""
        check(libbpf().bpf_link_detach(self.fd), f"detach the link to device {self.ifindex}")
        if self.pin is not None:
            self.pin.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """See Link."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
