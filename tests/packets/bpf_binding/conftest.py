"""The binding's own test program, compiled, loaded, pinned, and attached inside a namespace."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from achelous_shared.bpf import BpfObject, NetNs, ensure_bpffs, missing_for_ebpf

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("binding.bpf.c")


@pytest.fixture(scope="session", autouse=True)
def _ebpf() -> None:
    if missing := missing_for_ebpf():
        pytest.skip("; ".join(missing))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile the program with macros: compiled(TEST_ROUTES=16)."""
    subprocess.run(["make", "--silent", "build/bpf/vmlinux.h"], cwd=ROOT, check=True, timeout=60)
    folder = tmp_path_factory.mktemp("objects")

    def build(**macros: int) -> Path:
        defines = [f"-D{name}={value}" for name, value in macros.items()]
        target = folder / f"binding{'-'.join(defines)}.bpf.o"
        if not target.exists():
            includes = [f"-I{ROOT / 'build/bpf'}", f"-I{ROOT / 'shared/bpf'}"]
            options = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", *includes, *defines]
            command = ["clang-16", *options, "-Wno-missing-declarations", "-c", str(SOURCE)]
            subprocess.run([*command, "-o", str(target)], check=True, timeout=60)
        return target

    return build


@pytest.fixture
def path(compiled: Callable[..., Path]) -> Path:
    """The compiled object."""
    return compiled()


@pytest.fixture
def loaded(path: Path) -> Iterator[BpfObject]:
    """The object in the kernel, nothing pinned."""
    with BpfObject.open(path, pin_dir=None) as found:
        yield found


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A folder on a bpf filesystem of this test's own."""
    mount = tmp_path / "bpf"
    ensure_bpffs(mount)
    try:
        yield mount / "pins"
    finally:
        subprocess.run(["umount", str(mount)], check=True, timeout=10)


@pytest.fixture
def namespace() -> Iterator[NetNs]:
    """A network namespace with a veth pair, left and right, both up."""
    name = f"bpfbind-{os.getpid()}"
    inside = ["ip", "-netns", name, "link"]
    quiet = ["addrgenmode", "none", "up"]  # the kernel sends nothing of its own
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        for command in (
            [*inside, "add", "left", "type", "veth", "peer", "name", "right"],
            [*inside, "set", "left", *quiet],
            [*inside, "set", "right", *quiet],
        ):
            subprocess.run(command, check=True, timeout=10)
        with closing(NetNs(Path("/run/netns", name))) as entered:
            yield entered
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)
