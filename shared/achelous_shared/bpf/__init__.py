"""The binding between Python and eBPF: objects, maps, programs, links, rings, namespaces.

Packets never pass here. Python loads programs, attaches them, and reads and writes their maps
as numpy arrays whose layouts come from C by way of BTF.
"""

from achelous_shared.bpf.bpffs import ensure_bpffs
from achelous_shared.bpf.dtypes import dtype_of, enum_of
from achelous_shared.bpf.errors import BpfError, MapLayoutChanged
from achelous_shared.bpf.features import missing_for_ebpf
from achelous_shared.bpf.grace import wait_for_programs
from achelous_shared.bpf.layout import MapLayout, MapType
from achelous_shared.bpf.links import Link, attach_tcx, replace_pinned
from achelous_shared.bpf.maps import ANY, EXIST, LOCK, NOEXIST, BpfMap
from achelous_shared.bpf.netns import NetNs
from achelous_shared.bpf.object import BpfObject, object_path, traced_path
from achelous_shared.bpf.programs import SK_BUFF, BpfProgram, TestResult
from achelous_shared.bpf.ringbuf import RingBuffer
from achelous_shared.bpf.traced import Copies, Kind, Run, Step, TracedPath, load_traced

__all__ = [
    "BpfObject",
    "object_path",
    "traced_path",
    "dtype_of",
    "enum_of",
    "BpfMap",
    "MapType",
    "ANY",
    "NOEXIST",
    "EXIST",
    "LOCK",
    "RingBuffer",
    "BpfProgram",
    "TestResult",
    "SK_BUFF",
    "Link",
    "attach_tcx",
    "replace_pinned",
    "NetNs",
    "ensure_bpffs",
    "BpfError",
    "MapLayout",
    "MapLayoutChanged",
    "missing_for_ebpf",
    "wait_for_programs",
    "Copies",
    "Kind",
    "Run",
    "Step",
    "TracedPath",
    "load_traced",
]
