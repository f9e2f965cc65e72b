"""The vSwitch's programs compiled with layouts that differ from those of this release."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

MORE_FIELDS: Final = {
    "    __u64 created_ns;\n": "    __u32 came_new;\n    __u64 created_ns;\n",
    "    __u32 generation; /* odd: in use, even: free */\n    __u32 ifindex;\n": (
        "    __u64 came_new;\n    __u32 generation;\n    __u32 ifindex;\n"
    ),
    "    __u32 generation; /* odd: in use, even: free */\n    __u32 vni;\n": (
        "    __u64 came_new;\n    __u32 generation;\n    __u32 vni;\n"
    ),
}
"""Sessions, ports and FC entries begin with one field more."""
NO_PROTOCOL: Final = {
    "    __be16 port[2];\n    __u8 proto;\n": "    __be16 port[2];\n    __u8 kind;\n"
}
"""A session's key lacks what it had."""


def compile_vswitch(folder: Path, changes: dict[str, str]) -> Path:
    """Compile into `folder` with these changes of ach_layout.h; returns the folder."""
    shared, own = folder / "shared", folder / "own"
    shutil.copytree(ROOT / "shared/bpf", shared)
    shutil.copytree(ROOT / "services/vswitch/bpf", own)
    header = (shared / "ach_layout.h").read_text()
    for before, after in changes.items():
        assert before in header
        header = header.replace(before, after)
    (shared / "ach_layout.h").write_text(header)
    for source in own.iterdir() if "__u8 kind;" in header else ():
        text = source.read_text()
        if "ach_session_key" in text:
            source.write_text(text.replace("key->proto", "key->kind"))
    includes = [f"-I{shared}", f"-I{ROOT / 'build/bpf'}"]
    options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86", *includes]
    command = ["clang-16", *options, "-Wno-missing-declarations", "-c", str(own / "vswitch.bpf.c")]
    subprocess.run([*command, "-o", str(folder / "vswitch.bpf.o")], check=True, timeout=60)
    return folder
