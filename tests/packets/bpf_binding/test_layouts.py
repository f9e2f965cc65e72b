"""dtypes from BTF are C's layouts, byte for byte."""

import errno
from pathlib import Path

import numpy as np
import pytest

from achelous_shared.bpf import BpfError, BpfObject, dtype_of, enum_of, object_path

pytestmark = pytest.mark.kernel


def test_offsets_and_size_are_those_of_the_compiler(loaded: BpfObject) -> None:
    dtype = dtype_of(loaded, "bt_layout")
    told = loaded.maps[".rodata"].lookup(0)
    assert told is not None
    assert dtype.names is not None
    assert [dtype.fields[name][1] for name in dtype.names] == told["layout"].tolist()  # type: ignore[index]
    assert dtype.itemsize == told["layout_size"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("addr", np.dtype(("u1", (16,)))),
        ("port", np.dtype(">u2")),
        ("peer", np.dtype(">u4")),
        ("wide", np.dtype("<u8")),
        ("below", np.dtype("<i2")),
        ("yes", np.dtype("?")),
        ("color", np.dtype("<u4")),
        ("grid", np.dtype(("<u2", (2, 3)))),
    ],
)
def test_a_field_has_the_type_and_byte_order_of_c(
    path: Path, field: str, expected: np.dtype[np.generic]
) -> None:
    assert dtype_of(path, "bt_layout")[field] == expected


def test_nested_structs_and_unions_keep_their_own_padding(path: Path) -> None:
    dtype = dtype_of(path, "bt_layout")
    inner = dtype["inner"].base
    assert (inner.names, inner.itemsize) == (("tag", "number"), 8)
    assert (dtype["named"].names, dtype["named"].itemsize) == (("byte",), 4)


def test_enums_of_every_width_and_sign(path: Path) -> None:
    assert enum_of(path, "bt_color") == {"BT_RED": 0, "BT_GREEN": 5, "BT_BLUE": 6}
    assert enum_of(path, "bt_signed") == {"BT_BELOW": -1, "BT_ABOVE": 1}
    assert enum_of(path, "bt_wide") == {"BT_WIDE": 1 << 40}


def test_an_unknown_name_says_what_is_there_and_how_to_get_it_in(path: Path) -> None:
    with pytest.raises(KeyError, match=r"no struct nosuch .*bt_layout.*const struct nosuch"):
        dtype_of(path, "nosuch")
    with pytest.raises(KeyError, match=r"no enum nosuch .*bt_color"):
        enum_of(path, "nosuch")


def test_a_bit_field_is_refused_by_name(path: Path) -> None:
    with pytest.raises(TypeError, match="struct bt_bits: low is a bit field"):
        dtype_of(path, "bt_bits")


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.bpf.o").write_text("not an ELF file")
    with pytest.raises(BpfError, match=r"read BTF of .*text\.bpf\.o"):
        dtype_of(tmp_path / "text.bpf.o", "any")
    with pytest.raises(BpfError, match=r"open .*text\.bpf\.o"):
        BpfObject.open(tmp_path / "text.bpf.o", pin_dir=None)


def test_objects_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACHELOUS_BPF_DIR", str(tmp_path))
    with pytest.raises(BpfError, match="make bpf") as refused:
        object_path("vswitch")
    assert refused.value.errno == errno.ENOENT
    (tmp_path / "vswitch.bpf.o").touch()
    assert object_path("vswitch") == tmp_path / "vswitch.bpf.o"
