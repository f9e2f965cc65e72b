"""libbpf.so.1 by ctypes: prototypes of the functions that we call, and its log kept for errors."""

import ctypes
import functools
from collections import deque
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_char_p,
    c_int,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Final

LOG_LINES: Final = 40
DEBUG: Final = 2  # enum libbpf_print_level: WARN, INFO, DEBUG

# The va_list arrives as a pointer on x86-64 and arm64 alike.
PrintFn = CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

_u32p = POINTER(c_uint32)
_PROTOTYPES: Final[dict[str, tuple[type | None, tuple[type, ...]]]] = {
    "libbpf_set_print": (c_void_p, (PrintFn,)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__btf": (c_void_p, (c_void_p,)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__is_internal": (ctypes.c_bool, (c_void_p,)),
    "bpf_map__type": (c_int, (c_void_p,)),
    "bpf_map__key_size": (c_uint32, (c_void_p,)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__map_flags": (c_uint32, (c_void_p,)),
    "bpf_map__btf_key_type_id": (c_uint32, (c_void_p,)),
    "bpf_map__btf_value_type_id": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_map__set_pin_path": (c_int, (c_void_p, c_char_p)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "btf__parse_elf": (c_void_p, (c_char_p, c_void_p)),
    "btf__raw_data": (c_void_p, (c_void_p, _u32p)),
    "btf__free": (None, (c_void_p,)),
    "bpf_btf_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, _u32p)),
    "bpf_prog_query": (c_int, (c_int, c_int, c_uint32, _u32p, c_void_p, _u32p)),
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "bpf_link_create": (c_int, (c_int, c_int, c_int, c_void_p)),
    "bpf_link_update": (c_int, (c_int, c_int, c_void_p)),
    "bpf_link_detach": (c_int, (c_int,)),
    "bpf_tc_hook_create": (c_int, (c_void_p,)),
    "bpf_tc_attach": (c_int, (c_void_p, c_void_p)),
    "bpf_tc_detach": (c_int, (c_void_p, c_void_p)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_delete_elem": (c_int, (c_int, c_void_p)),
    "bpf_map_lookup_batch": (
        c_int,
        (c_int, c_void_p, c_void_p, c_void_p, c_void_p, _u32p, c_void_p),
    ),
    "bpf_map_update_batch": (c_int, (c_int, c_void_p, c_void_p, _u32p, c_void_p)),
    "bpf_map_delete_batch": (c_int, (c_int, c_void_p, _u32p, c_void_p)),
}


class Libbpf(ctypes.CDLL):
    """The library with its prototypes set; what it would print goes to a bounded log instead."""

    def __init__(self) -> None:
        super().__init__("libbpf.so.1", use_errno=True)
        for name, (restype, argtypes) in _PROTOTYPES.items():
            function = getattr(self, name)
            function.restype = restype
            function.argtypes = argtypes
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._vsnprintf.argtypes = (c_char_p, c_size_t, c_char_p, c_void_p)
        self._callback = PrintFn(self._keep)  # libbpf holds only the bare pointer
        self.libbpf_set_print(self._callback)

    def _keep(self, level: int, template: bytes, arguments: int) -> int:
        if level < DEBUG:
            text = ctypes.create_string_buffer(1024)
            self._vsnprintf(text, len(text), template, arguments)
            self._lines.append(text.value.decode(errors="replace").rstrip())
        return 0

    def take_log(self) -> str:
        """What libbpf said since the last call, oldest first, at most LOG_LINES messages."""
        lines = list(self._lines)
        self._lines.clear()
        return "\n".join(lines)


@functools.cache
def libbpf() -> Libbpf:
    """The library, loaded at first use, so that importing this package needs no libbpf."""
    return Libbpf()
