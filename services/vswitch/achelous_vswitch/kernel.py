"""The packet path in the kernel: the eBPF object with its pinned maps, and links on devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from achelous_shared.bpf import (
    BpfObject,
    BpfProgram,
    Link,
    NetNs,
    RingBuffer,
    attach_tcx,
    dtype_of,
    ensure_bpffs,
    enum_of,
    load_traced,
    object_path,
    replace_pinned,
    traced_path,
)
from achelous_shared.tracing import Tracer
from achelous_vswitch.dataplane import Dataplane
from achelous_vswitch.programmed import slots_for
from achelous_vswitch.settings import VswitchSettings
from achelous_vswitch.tracer import COPIES

_MAPS: Final = "maps"
_LINKS: Final = "links"


class TcHooks:
    """Programs at the tc ingress of devices, by links that are pinned by device name."""

    def __init__(
        self, netns: NetNs, folder: Path, from_guest: BpfProgram, from_underlay: BpfProgram
    ) -> None:
        self._netns = netns
        self._folder = folder
        self._from_guest = from_guest
        self._from_underlay = from_underlay
        self._links: dict[str, Link] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def attach_guest(self, device: str, ifindex: int) -> None:
        """Run `from_guest` on what the guest sends."""
        await self._attach(self._from_guest, device, ifindex)

    async def attach_underlay(self, device: str, ifindex: int) -> None:
        """Run `from_underlay` on what other hosts send."""
        await self._attach(self._from_underlay, device, ifindex)

    async def detach(self, device: str) -> None:
        """Remove the link and its pin."""
        link = self._links.pop(device, None)
        if link is not None:
            await self._netns.run(link.detach)
        (self._folder / device).unlink(missing_ok=True)

    def attached(self) -> set[str]:
        """Devices with a link, whether the device is still there or not."""
        return self._links.keys() | {pin.name for pin in self._folder.iterdir()}

    def replace_all(self, underlay_device: str) -> None:
        """Run the new programs wherever the old ones do: their maps are others."""
        for pin in self._folder.iterdir():
            underlay = pin.name == underlay_device
            replace_pinned(self._from_underlay if underlay else self._from_guest, pin)

    def close(self) -> None:
        """Let go of the links; the pins hold them."""
        for link in self._links.values():
            link.close()
        self._links.clear()

    async def _attach(self, program: BpfProgram, device: str, ifindex: int) -> None:
        known = self._links.pop(device, None)
        if known is not None:
            known.close()
        pin = self._folder / device
        self._links[device] = await self._netns.run(lambda: attach_tcx(program, ifindex, pin=pin))


@contextmanager
def open_dataplane(settings: VswitchSettings, netns: NetNs) -> Iterator[Dataplane]:
    """Load the packet path, or take over the one that runs; packets do not notice its closing.

    Pinned maps of another size or layout are succeeded by new ones with the same entries. Raises
    BpfError: eBPF is missing here, or entries of a pinned map cannot go over (MapLayoutChanged).
    """
    ensure_bpffs(settings.bpffs)
    path = object_path("vswitch")
    pins = settings.bpffs / _MAPS
    with BpfObject.open(
        path, pin_dir=pins, max_entries=_capacities(settings), carry=True
    ) as opened:
        maps = opened.maps
        hooks = TcHooks(
            netns,
            settings.bpffs / _LINKS,
            opened.programs["from_guest"],
            opened.programs["from_underlay"],
        )
        if opened.carried:
            hooks.replace_all(settings.underlay_device)
            opened.settle()
        inside = NetNs(settings.netns)
        tracer = Tracer(lambda: load_traced(traced_path("vswitch"), maps, COPIES), inside)
        try:
            yield Dataplane(
                config=maps["config"].mmap(),
                ports=maps["ports"].mmap(),
                leases=maps["leases"].mmap(),
                fc=maps["fc"].mmap(),
                gateways=maps["gateways"].mmap(),
                session_counts=maps["session_counts"].mmap(),
                session_hands=maps["session_hands"].mmap(),
                port_by_ifindex=maps["port_by_ifindex"],
                endpoints=maps["endpoints"],
                vnis=maps["vnis"],
                acl_sets=maps["acl_sets"],
                acl_words=maps["acl_words"].mmap(),
                fc_index=maps["fc_index"],
                sessions=maps["sessions"],
                vteps=maps["vteps"],
                counters=maps["counters"],
                learn=RingBuffer(maps["learn"], dtype_of(opened, "ach_learn_event")),
                samples=RingBuffer(maps["samples"], dtype_of(opened, "ach_drop_sample")),
                hooks=hooks,
                drop_reasons=_drop_reasons(enum_of(opened, "ach_drop")),
                max_sessions=maps["sessions"].max_entries,
                tracer=tracer,
            )
        finally:
            tracer.close()
            inside.close()
            hooks.close()


def remove_dataplane(bpffs: Path) -> int:
    """Remove all pins of one host, and with them its packet path; returns how many there were.

    To be called when its agent has ended: packets of its guests then reach nothing.
    """
    removed = 0
    for folder in (bpffs / _LINKS, bpffs / _MAPS):
        for pin in folder.iterdir() if folder.is_dir() else ():
            pin.unlink()
            removed += 1
        if folder.is_dir():
            folder.rmdir()
    return removed


def _capacities(settings: VswitchSettings) -> dict[str, int]:
    """Entries of each map. Slot 0 of ports and fc is no vNIC's and no destination's."""
    ports, learned = settings.max_ports + 1, settings.max_fc + 1
    fc = learned + slots_for(settings.max_preprogrammed)
    return {
        "ports": ports,
        "counters": ports,
        "icmp_budgets": ports,
        "leases": ports,
        "port_by_ifindex": ports,
        "endpoints": 2 * ports,  # an IPv4 and an IPv6 address each
        "vnis": ports,
        "acl_sets": 4 * ports,  # two directions, and as many that were replaced a moment ago
        "acl_words": settings.max_rule_words,
        "fc": fc,
        "fc_index": fc,
        "relayed": learned,
        "sessions": settings.max_sessions,
        "session_ring": settings.max_sessions,
        "session_counts": ports,
    }


def _drop_reasons(numbers: dict[str, int]) -> tuple[str, ...]:
    by_number = sorted((number, name) for name, number in numbers.items())
    names = [name.removeprefix("ACH_DROP_").lower() for _, name in by_number]
    return tuple(name for name in names if name != "count")
