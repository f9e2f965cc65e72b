"""Where an object's maps are pinned, and whether what is pinned there can be adopted."""

import errno
from collections.abc import Mapping
from pathlib import Path

from achelous_shared.bpf.bpffs import is_bpffs
from achelous_shared.bpf.carry import PinnedMap, Shape, fits, open_pinned, why_not
from achelous_shared.bpf.errors import BpfError, MapLayoutChanged, check
from achelous_shared.bpf.layout import MapLayout, MapType
from achelous_shared.bpf.libbpf import libbpf


def layout_of(handle: int) -> MapLayout:
    """The layout that a map of an opened object wants."""
    lib = libbpf()
    return MapLayout(
        MapType(lib.bpf_map__type(handle)),
        lib.bpf_map__key_size(handle),
        lib.bpf_map__value_size(handle),
        lib.bpf_map__max_entries(handle),
        lib.bpf_map__map_flags(handle),
    )


def choose_pins(
    handles: Mapping[str, int],
    shapes: Mapping[str, Shape],
    pin_dir: Path | None,
    *,
    carry: bool,
) -> list[PinnedMap]:
    """Tell libbpf where to pin or adopt each map, after seeing that what is there fits.

    `handles` are libbpf's maps by name, before loading. Sections of globals are never pinned.
    Returns the pinned maps that do not fit, and whose entries can go over, if `carry`: their
    successors are not pinned yet. Raises MapLayoutChanged for what neither fits nor goes over.
    """
    if pin_dir is not None:
        pin_dir.mkdir(parents=True, exist_ok=True)
        if not is_bpffs(pin_dir):
            raise BpfError(errno.EINVAL, f"pin maps in {pin_dir} (call ensure_bpffs first)")
    leaving: list[PinnedMap] = []
    try:
        for name, handle in handles.items():
            pin = None if pin_dir is None or name.startswith(".") else pin_dir / name
            if pin is not None and pin.exists():
                misfit = _misfit(name, pin, shapes[name], carry=carry)
                if misfit is not None:
                    leaving.append(misfit)
                    pin = None
            check(
                libbpf().bpf_map__set_pin_path(handle, str(pin).encode() if pin else None),
                f"pin map {name} at {pin}",
            )
    except BaseException:
        for one in leaving:
            one.close()
        raise
    return leaving


def _misfit(name: str, pin: Path, wanted: Shape, *, carry: bool) -> PinnedMap | None:
    """The pinned map if it does not fit and its entries can go over; None if it fits."""
    pinned = open_pinned(name, pin)
    if fits(pinned.shape, wanted):
        pinned.close()
        return None
    why = why_not(pinned.shape, wanted) if carry else "its fields are others"
    if why is not None:
        pinned.close()
        raise MapLayoutChanged(name, pinned.shape.layout, wanted.layout, pin, why)
    return pinned
