"""Gives the tour: sets up, shows the sights, prints a table, cleans up, and says if all held."""

import json
import sys
import time
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from achelous_lab.platform import Lab, Size
from achelous_lab.tour.sights import SIGHTS, Shown, Sight
from achelous_lab.tour.stage import Stage, build

SIZE = Size(hosts=3, gateways=2)


async def give_tour(*, as_json: bool = False) -> int:
    """Exit code 0 only if every claim held. Progress goes to standard error."""
    progress = Console(stderr=True, highlight=False)
    shown: list[Shown] = []
    started = time.monotonic()
    progress.print(f"[bold]Starting[/] a platform of {SIZE.hosts} hosts, {SIZE.gateways} gateways")
    async with Lab(SIZE) as lab:
        up = time.monotonic() - started
        progress.print(f"  up after {up:.1f} s, files in {lab.run_dir.path}")
        stage = await build(lab)
        took = time.monotonic() - started - up
        shown.append(Shown("8 guests of 2 projects are ACTIVE", f"{took:.1f} s", held=True))
        for number, sight in enumerate(SIGHTS, start=1):
            what = (sight.__doc__ or "").splitlines()[0]
            progress.print(f"[bold]{number}/{len(SIGHTS)}[/] {what}")
            shown.append(await _look(sight, stage))
            progress.print(f"    {shown[-1].figure}")
        progress.print("[bold]Cleaning up[/]")
    total = time.monotonic() - started
    held = all(one.held for one in shown)
    if as_json:
        print(json.dumps({"held": held, "seconds": total, "shown": [asdict(s) for s in shown]}))  # noqa: T201  this is the command's output
    else:
        _print_table(shown, total)
    return 0 if held else 1


async def _look(sight: Sight, stage: Stage) -> Shown:
    try:
        return await sight(stage)
    except Exception as error:
        return Shown((sight.__doc__ or "").splitlines()[0], f"failed: {error}", held=False)


def _print_table(shown: list[Shown], total: float) -> None:
    table = Table(title=f"Achelous, shown in {total:.0f} s", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("claim")
    table.add_column("measured")
    for one in shown:
        table.add_row("[green]held[/]" if one.held else "[red]FAILED[/]", one.claim, one.figure)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
