"""An eBPF object file in the kernel: opened, loaded, its maps pinned or re-adopted."""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import numpy as np

from achelous_shared.bpf.btf import Btf
from achelous_shared.bpf.carry import Carried, PinnedMap, Shape
from achelous_shared.bpf.dtypes import section_dtype, to_dtype
from achelous_shared.bpf.errors import BpfError, check
from achelous_shared.bpf.libbpf import libbpf
from achelous_shared.bpf.maps import BpfMap
from achelous_shared.bpf.pins import choose_pins, layout_of
from achelous_shared.bpf.programs import BpfProgram

DEFAULT_DIR: Final = "/usr/lib/achelous/bpf"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_VERIFIER_LOG: Final = 16 << 20  # virtual: only what the verifier writes becomes memory
_LOG_TAIL: Final = 40  # lines


def object_path(name: str) -> Path:
    """The compiled object of a service ("vswitch"), in $ACHELOUS_BPF_DIR; BpfError if absent."""
    return _built(f"{name}.bpf.o")


def traced_path(name: str) -> Path:
    """Likewise the one that tells what it does (see traced.py)."""
    return _built(f"{name}.trace.o")


def _built(name: str) -> Path:
    folder = Path(os.environ.get("ACHELOUS_BPF_DIR", DEFAULT_DIR))
    path = folder / name
    if not path.is_file():
        raise BpfError(
            errno.ENOENT,
            f"find eBPF object {path} (run `make bpf`, or point ACHELOUS_BPF_DIR at its folder)",
        )
    return path


class BpfObject:
    """A loaded object; owns the fds of its maps and programs. Maps are named as in C.

    Sections of globals are maps too, by section name (`maps[".bss"].mmap()[0]["counter"]`). They
    are part of a program and never pinned: what must outlive the process goes into a named map.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self.path = path
        self.btf = Btf.of_handle(libbpf().bpf_object__btf(handle))
        self.maps: Mapping[str, BpfMap] = _NOTHING
        self.programs: Mapping[str, BpfProgram] = _NOTHING
        self.carried: tuple[Carried, ...] = ()
        """Maps that take over from pinned ones of another layout, until `settle`."""
        self._leaving: list[PinnedMap] = []
        self._handle: int | None = handle

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        pin_dir: Path | None,
        max_entries: Mapping[str, int] = _NOTHING,
        rodata: Mapping[str, int | bytes] = _NOTHING,
        carry: bool = False,
        share: Mapping[str, BpfMap] = _NOTHING,
    ) -> Self:
        """Open and load `path`; its maps get `max_entries`, its `const volatile` globals `rodata`.

        With `pin_dir` (on a bpf filesystem) each map is pinned as pin_dir/<map name>, and one that
        is pinned there already is adopted with its contents: MapLayoutChanged if it cannot be,
        for it has another layout. With `carry`, its entries have been copied into a new map in
        that case, and the pin is left alone until `settle` (see carry.py). Maps named in `share`
        are those of another object, which has them open.
        BpfError with the verifier's last lines if a program is refused.
        """
        log = _VerifierLog()
        opened = cls(log.open(path), path)
        try:
            handles = {_map_name(handle): handle for handle in opened._handles("map")}
            _resize(handles, max_entries, path)
            _share(handles, share, path)
            opened._write_rodata(handles, rodata)
            # Types of a shared map are numbered as in the object that made it.
            shapes = {
                name: _shape_of(share[name], handle)
                if name in share
                else opened._shape(name, handle)
                for name, handle in handles.items()
            }
            leaving = choose_pins(handles, shapes, pin_dir, carry=carry)
            opened._leaving = leaving
            log.check(libbpf().bpf_object__load(opened._handle), f"load {path}")
            opened.maps = MappingProxyType(
                {name: _made(name, handle, shapes[name]) for name, handle in handles.items()}
            )
            opened.programs = MappingProxyType(
                {program.name: program for program in map(_program, opened._handles("program"))}
            )
            opened.carried = tuple(Carried(one, opened.maps[one.name]) for one in leaving)
            for one in opened.carried:
                one.copy()
        except BaseException:
            opened.close()
            raise
        return opened

    def settle(self) -> None:
        """The new programs run: carry over what came late, and give the new maps their pins."""
        for one in self.carried:
            one.copy_missing()
        for one in self.carried:
            one.take_pin()

    def close(self) -> None:
        """Close all fds. Pinned maps and attached programs live on; mmapped views stay valid."""
        for one in self._leaving:
            one.close()
        self._leaving.clear()
        if self._handle is not None:
            libbpf().bpf_object__close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _handles(self, what: str) -> Iterator[int]:
        following = getattr(libbpf(), f"bpf_object__next_{what}")
        handle = following(self._handle, None)
        while handle:
            yield handle
            handle = following(self._handle, handle)

    def _shape(self, name: str, handle: int) -> Shape:
        layout = layout_of(handle)
        key_type = libbpf().bpf_map__btf_key_type_id(handle)
        value_type = libbpf().bpf_map__btf_value_type_id(handle)
        key = self._dtype(key_type, layout.key_size)
        if name.startswith("."):
            return Shape(layout, key, section_dtype(self.btf, name, layout.value_size))
        return Shape(layout, key, self._dtype(value_type, layout.value_size))

    def _dtype(self, type_id: int, size: int) -> np.dtype[Any]:
        if not type_id:  # declared by size alone
            return np.dtype("<u4") if size == 4 else np.dtype(f"V{size}")
        dtype = to_dtype(self.btf, type_id)
        # numpy would melt a bare array into the axes of every array of it.
        return np.dtype([("items", dtype)]) if dtype.subdtype else dtype

    def _write_rodata(self, handles: Mapping[str, int], rodata: Mapping[str, int | bytes]) -> None:
        places = {
            variable: (handles[section], member, size)
            for section in handles
            if section.startswith(".rodata")
            for variable, (member, size) in self.btf.variables(section).items()
        }
        for variable, value in rodata.items():
            if variable not in places:
                raise KeyError(f"{self.path} has no constant {variable}, only {sorted(places)}")
            handle, member, size = places[variable]
            if isinstance(value, int):
                value = np.array(value, to_dtype(self.btf, member.type)).tobytes()
            if len(value) != size:
                raise ValueError(f"constant {variable} has {size} bytes, not {len(value)}")
            total = ctypes.c_size_t()
            memory = libbpf().bpf_map__initial_value(handle, ctypes.byref(total))
            ctypes.memmove(memory + member.offset // 8, value, size)


class _OpenOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("pad", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
        ("kernel_log_buf", ctypes.c_void_p),
        ("kernel_log_size", ctypes.c_size_t),
        ("kernel_log_level", ctypes.c_uint32),
    ]


class _VerifierLog:
    """Memory that libbpf has the verifier write to when, and only when, it refuses a program."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _VERIFIER_LOG)

    def open(self, path: Path) -> int:
        libbpf().take_log()
        opts = _OpenOpts(
            sz=ctypes.sizeof(_OpenOpts),
            kernel_log_buf=ctypes.addressof(ctypes.c_char.from_buffer(self._memory)),
            kernel_log_size=len(self._memory),
        )
        handle: int | None = libbpf().bpf_object__open_file(str(path).encode(), ctypes.byref(opts))
        if not handle:
            raise BpfError(ctypes.get_errno(), f"open {path}", libbpf().take_log())
        return handle

    def check(self, result: int, attempted: str) -> None:
        text = self._memory[: self._memory.find(b"\0")].decode(errors="replace")
        tail = text.splitlines()[-_LOG_TAIL:]
        check(result, attempted, "\n".join([*tail, libbpf().take_log()]) if result else "")


def _made(name: str, handle: int, shape: Shape) -> BpfMap:
    return BpfMap(name, libbpf().bpf_map__fd(handle), shape.layout, shape.key, shape.value)


def _map_name(handle: int) -> str:
    name: str = libbpf().bpf_map__name(handle).decode()
    # libbpf names sections of globals <object>.<section>, cut to 15 characters from the left part.
    return name[name.index(".") :] if libbpf().bpf_map__is_internal(handle) else name


def _program(handle: int) -> BpfProgram:
    name: str = libbpf().bpf_program__name(handle).decode()
    return BpfProgram.of_fd(name, libbpf().bpf_program__fd(handle))


def _shape_of(shared: BpfMap, handle: int) -> Shape:
    return Shape(layout_of(handle), shared.key_dtype, shared.value_dtype)


def _share(handles: Mapping[str, int], share: Mapping[str, BpfMap], path: Path) -> None:
    for name, shared in share.items():
        if name not in handles:
            raise KeyError(f"{path} has no map {name} to share, only {sorted(handles)}")
        check(
            libbpf().bpf_map__reuse_fd(handles[name], shared.fd),
            f"use the map {shared.name} of another object as {name}",
        )


def _resize(handles: Mapping[str, int], max_entries: Mapping[str, int], path: Path) -> None:
    for name, entries in max_entries.items():
        if name not in handles:
            raise KeyError(f"{path} has no map {name} to size, only {sorted(handles)}")
        check(
            libbpf().bpf_map__set_max_entries(handles[name], entries),
            f"give map {name} room for {entries} entries",
        )
