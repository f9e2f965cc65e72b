"""bpf(2)'s information about programs, maps and links, as the kernel's own structures."""

import ctypes
from ctypes import c_char, c_uint8, c_uint32, c_uint64
from typing import Final

from achelous_shared.bpf.errors import check
from achelous_shared.bpf.libbpf import libbpf

# enum bpf_attach_type
BPF_TCX_INGRESS: Final = 46
BPF_TCX_EGRESS: Final = 47


class ProgInfo(ctypes.Structure):
    """`struct bpf_prog_info` up to `verified_insns`."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
    ]


class MapInfo(ctypes.Structure):
    """`struct bpf_map_info` up to `map_extra`."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("btf_id", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_id", c_uint32),
        ("map_extra", c_uint64),
    ]


class TcxLinkInfo(ctypes.Structure):
    """`struct bpf_link_info` as a TCX link fills it. `ifindex` 0: its device is gone."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("pad", c_uint32),
        ("ifindex", c_uint32),
        ("attach_type", c_uint32),
        ("rest", c_uint64 * 6),  # the kernel copies the whole union
    ]


def _info(fd: int, info: ctypes.Structure, attempted: str) -> None:
    size = c_uint32(ctypes.sizeof(info))
    check(
        libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)),
        attempted,
    )


def prog_info(fd: int) -> ProgInfo:
    """Information about the program behind `fd`."""
    info = ProgInfo()
    _info(fd, info, f"read information of the program at fd {fd}")
    return info


def map_info(fd: int) -> MapInfo:
    """Information about the map behind `fd`."""
    info = MapInfo()
    _info(fd, info, f"read information of the map at fd {fd}")
    return info


def tcx_link_info(fd: int) -> TcxLinkInfo:
    """Information about the TCX link behind `fd`; ifindex is of the device's own namespace."""
    info = TcxLinkInfo()
    _info(fd, info, f"read information of the link at fd {fd}")
    return info
