"""Removing what labs have left that were killed before they could clean up."""

from pathlib import Path

from achelous_lab import syscalls
from achelous_lab.netns.namespace import NETNS_DIR, Namespace
from achelous_lab.rundir import RunDir, stale_rundirs


def sweep_stale(base: Path | None = None) -> list[str]:
    """Remove namespaces, mounts and files of dead labs; returns their prefixes.

    A lab is dead when nobody holds the lock of its run directory. Its processes are gone by then:
    the kernel ends them with the lab.
    """
    swept = []
    for run_dir in stale_rundirs(base):
        remove_leftovers(run_dir)
        swept.append(run_dir.prefix)
        run_dir.close()
    return swept


def remove_leftovers(run_dir: RunDir) -> None:
    """Remove namespaces and mounts of the lab with this run directory; the files stay."""
    for path in NETNS_DIR.glob(f"{run_dir.prefix}-*"):
        Namespace(path.name).remove()
    for mounted in mounts_under(run_dir.path):
        syscalls.unmount(mounted)


def mounts_under(directory: Path) -> list[Path]:
    """Innermost first."""
    points = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((p for p in points if p.is_relative_to(directory)), reverse=True)
