"""BTF: the type information that clang writes beside eBPF code (kernel docs, bpf/btf.rst)."""

import ctypes
import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from achelous_shared.bpf.errors import BpfError
from achelous_shared.bpf.libbpf import libbpf

MAGIC: Final = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")


class Kind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes that follow a type's three words: (fixed, per element of vlen).
_TRAILER: Final[dict[Kind, tuple[int, int]]] = {
    Kind.INT: (4, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.DECL_TAG: (4, 0),
    Kind.ENUM64: (0, 12),
}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union, or a variable of a section. `offset` in bits."""

    name: str
    type: int
    offset: int
    bitfield: int = 0


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type. `ref` is the size in bytes or the id of the type referred to, by kind."""

    id: int
    kind: Kind
    name: str
    ref: int
    flag: bool
    data: bytes


class Btf:
    """The types of one eBPF object. Type ids count from 1; id 0 is void."""

    def __init__(self, raw: bytes) -> None:
        magic, _, _, header, type_at, type_len, str_at, str_len = _HEADER.unpack_from(raw)
        if magic != MAGIC:
            raise ValueError(f"BTF starts with {magic:#x}, not with {MAGIC:#x}")
        self._strings = raw[header + str_at : header + str_at + str_len]
        self.types: list[BtfType] = [BtfType(0, Kind.VOID, "void", 0, False, b"")]
        self.types += self._parse(raw[header + type_at : header + type_at + type_len])

    @classmethod
    def of_file(cls, path: Path) -> "Btf":
        """The BTF of the object file at `path`; BpfError where there is none."""
        handle = libbpf().btf__parse_elf(str(path).encode(), None)
        if not handle:
            code = ctypes.get_errno() or errno.EINVAL
            raise BpfError(code, f"read BTF of {path}", libbpf().take_log())
        try:
            return cls.of_handle(handle)
        finally:
            libbpf().btf__free(handle)

    @classmethod
    def of_handle(cls, handle: int) -> "Btf":
        """A copy of libbpf's `struct btf *`."""
        size = ctypes.c_uint32()
        return cls(ctypes.string_at(libbpf().btf__raw_data(handle, ctypes.byref(size)), size.value))

    def find(self, kind: Kind, name: str) -> BtfType | None:
        """The type of that kind and name, or None."""
        return next((t for t in self.types if t.kind is kind and t.name == name), None)

    def names(self, kind: Kind) -> list[str]:
        """All names of that kind, sorted."""
        return sorted({t.name for t in self.types if t.kind is kind and t.name})

    def members(self, struct_type: BtfType) -> list[Member]:
        """Members of a struct or union in the order of C."""
        found = []
        for name_at, type_id, offset in struct.iter_unpack("<III", struct_type.data):
            bits, offset = (offset >> 24, offset & 0xFFFFFF) if struct_type.flag else (0, offset)
            found.append(Member(self._string(name_at), type_id, offset, bits))
        return found

    def variables(self, section: str) -> dict[str, tuple[Member, int]]:
        """Variables of a data section: name -> (where and of what type, size in bytes)."""
        datasec = self.find(Kind.DATASEC, section)
        if datasec is None:
            return {}
        found = {}
        for type_id, offset, size in struct.iter_unpack("<III", datasec.data):
            variable = self.types[type_id]
            found[variable.name] = (Member(variable.name, variable.ref, offset * 8), size)
        return found

    def enumerators(self, enum: BtfType) -> dict[str, int]:
        """Names and numbers of an enum in the order of C."""
        if enum.kind is Kind.ENUM64:
            wide = struct.iter_unpack("<IIi" if enum.flag else "<III", enum.data)
            pairs = [(name, high << 32 | low) for name, low, high in wide]
        else:
            pairs = list(struct.iter_unpack("<Ii" if enum.flag else "<II", enum.data))
        return {self._string(name): value for name, value in pairs}

    def resolve(self, type_id: int) -> BtfType:
        """The type behind qualifiers and tags; typedefs are left, their names carry byte order."""
        found = self.types[type_id]
        while found.kind in (Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG):
            found = self.types[found.ref]
        return found

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def _parse(self, data: bytes) -> Iterator[BtfType]:
        at, number = 0, 1
        while at < len(data):
            name_at, info, ref = _TYPE.unpack_from(data, at)
            kind = Kind(info >> 24 & 0x1F)
            fixed, each = _TRAILER.get(kind, (0, 0))
            start = at + _TYPE.size
            at = start + fixed + each * (info & 0xFFFF)
            yield BtfType(
                number, kind, self._string(name_at), ref, bool(info >> 31), data[start:at]
            )
            number += 1
