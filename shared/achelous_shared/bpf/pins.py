"""Where an object's maps are pinned, and whether what is pinned there can be adopted."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from achelous_shared.bpf.bpffs import is_bpffs
from achelous_shared.bpf.errors import BpfError, MapLayoutChanged, check
from achelous_shared.bpf.kernel import map_info
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


def choose_pins(handles: Mapping[str, int], pin_dir: Path | None) -> None:
    """Tell libbpf where to pin or adopt each map, after seeing that what is there fits.

    `handles` are libbpf's maps by name, before loading. Sections of globals are never pinned.
    """
    if pin_dir is not None:
        pin_dir.mkdir(parents=True, exist_ok=True)
        if not is_bpffs(pin_dir):
            raise BpfError(errno.EINVAL, f"pin maps in {pin_dir} (call ensure_bpffs first)")
    for name, handle in handles.items():
        pin = None if pin_dir is None or name.startswith(".") else pin_dir / name
        if pin is not None and pin.exists():
            _must_fit(name, pin, layout_of(handle))
        check(
            libbpf().bpf_map__set_pin_path(handle, str(pin).encode() if pin else None),
            f"pin map {name} at {pin}",
        )


def _must_fit(name: str, pin: Path, wanted: MapLayout) -> None:
    fd = check(libbpf().bpf_obj_get(str(pin).encode()), f"open the pinned map {pin}")
    try:
        info = map_info(fd)
    finally:
        os.close(fd)
    pinned = MapLayout(
        MapType(info.type), info.key_size, info.value_size, info.max_entries, info.map_flags
    )
    if pinned != wanted:
        raise MapLayoutChanged(name, pinned, wanted, pin)
