"""numpy dtypes and enums from BTF: C is the only definition of layouts, Python derives."""

import struct
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from achelous_shared.bpf.btf import Btf, BtfType, Kind, Member

# BTF keeps no byte order: by convention, the typedef's name tells it.
_BIG_ENDIAN: Final = {"__be16": ">u2", "__be32": ">u4", "__be64": ">u8"}
_INT_SIGNED: Final = 1
_INT_BOOL: Final = 4
_POINTER: Final = np.dtype("<u8")


class HasBtf(Protocol):
    """What carries types: a loaded object."""

    @property
    def btf(self) -> Btf: ...


def dtype_of(source: Path | HasBtf, struct_name: str) -> np.dtype[Any]:
    """The structured dtype of `struct <struct_name>` of an object (loaded, or a file).

    Offsets and itemsize are C's. Raises KeyError for a name that the object's BTF lacks: clang
    writes only types that a map, a global variable or a function's signature reaches.
    """
    btf = _btf(source)
    found = btf.find(Kind.STRUCT, struct_name)
    if found is None:
        raise KeyError(_absent(btf, Kind.STRUCT, "struct", struct_name))
    return to_dtype(btf, found.id)


def enum_of(source: Path | HasBtf, enum_name: str) -> dict[str, int]:
    """Names and numbers of `enum <enum_name>` of an object (loaded, or a file), in C's order."""
    btf = _btf(source)
    found = btf.find(Kind.ENUM, enum_name) or btf.find(Kind.ENUM64, enum_name)
    if found is None:
        raise KeyError(_absent(btf, Kind.ENUM, "enum", enum_name))
    return btf.enumerators(found)


def to_dtype(btf: Btf, type_id: int) -> np.dtype[Any]:
    """The dtype of any type: integers, floats, enums, pointers, arrays, structs, unions."""
    found = btf.resolve(type_id)
    match found.kind:
        case Kind.TYPEDEF:
            big = _BIG_ENDIAN.get(found.name)
            return np.dtype(big) if big else to_dtype(btf, found.ref)
        case Kind.INT:
            return _integer(found)
        case Kind.FLOAT:
            return np.dtype(f"<f{found.ref}")
        case Kind.ENUM | Kind.ENUM64:
            return np.dtype(f"<{'i' if found.flag else 'u'}{found.ref}")
        case Kind.PTR:
            return _POINTER
        case Kind.ARRAY:
            element, _, count = struct.unpack("<III", found.data)
            inner = to_dtype(btf, element)
            return np.dtype((inner.base, (count, *inner.shape)))
        case Kind.STRUCT:
            return _record(btf, _flat(btf, found, 0), found.ref)
        case Kind.UNION:
            return _union(btf, found)
    raise TypeError(f"BTF type {found.id} ({found.kind.name} {found.name}) has no numpy dtype")


def section_dtype(btf: Btf, section: str, size: int) -> np.dtype[Any]:
    """The record of a section of globals (.bss, .data, .rodata): one field per variable."""
    return _record(btf, [member for member, _ in btf.variables(section).values()], size)


def _integer(found: BtfType) -> np.dtype[Any]:
    encoding = struct.unpack("<I", found.data)[0] >> 24 & 0xF
    if encoding & _INT_BOOL:
        return np.dtype("?")
    if found.ref > 8:  # __int128 has no numpy counterpart
        return np.dtype(("u1", (found.ref,)))
    return np.dtype(f"<{'i' if encoding & _INT_SIGNED else 'u'}{found.ref}")


def _union(btf: Btf, union: BtfType) -> np.dtype[Any]:
    first = btf.members(union)[0]
    dtype = to_dtype(btf, first.type)
    if dtype.itemsize == union.ref:
        return dtype
    return _record(btf, [first], union.ref)


def _flat(btf: Btf, found: BtfType, base: int) -> list[Member]:
    """Members with those of anonymous structs and unions in their place, as C names them."""
    members = []
    for member in btf.members(found):
        at = Member(member.name, member.type, base + member.offset, member.bitfield)
        inner = btf.resolve(member.type)
        if not member.name and inner.kind in (Kind.STRUCT, Kind.UNION):
            nested = _flat(btf, inner, at.offset)
            members += nested[:1] if inner.kind is Kind.UNION else nested
        elif member.bitfield:
            raise TypeError(
                f"struct {found.name}: {member.name} is a bit field, which numpy cannot name; "
                f"use whole integers in what Python reads"
            )
        else:
            members.append(at)
    return members


def _record(btf: Btf, members: list[Member], size: int) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": [member.name for member in members],
            "formats": [to_dtype(btf, member.type) for member in members],
            "offsets": [member.offset // 8 for member in members],
            "itemsize": size,
        }
    )


def _btf(source: Path | HasBtf) -> Btf:
    return Btf.of_file(source) if isinstance(source, Path) else source.btf


def _absent(btf: Btf, kind: Kind, word: str, name: str) -> str:
    return (
        f"no {word} {name} in the object's BTF (it has {', '.join(btf.names(kind)) or 'none'}): "
        f"let the C code mention it, by `const {word} {name} *{name}_btf "
        f"__attribute__((unused));` at file scope"
    )
