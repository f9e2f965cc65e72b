"""Plays the hypervisor of the lab's hosts: a guest for each instance that is placed on them.

It asks the REST API what there is, as an operator, and makes that so: a guest's devices appear on
its host, and go when the instance is gone; one that was moved starts anew on its new host. What it
fails at it says, and tries again.
"""

import asyncio
import logging
from typing import Final

import httpx

from achelous_lab.api import Api, ApiRefused, Object
from achelous_lab.platform import Instance, Lab

log = logging.getLogger(__name__)

_PERIOD_S: Final = 0.3
_PAGE: Final = 1000


class Hypervisor:
    """Run it as a task beside the lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._hosts = {str(host.id) for host in lab.hosts}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._make_it_so(await all_instances(self._lab.api))
            except (ApiRefused, httpx.HTTPError, OSError) as error:
                log.warning("hypervisor: %s; trying again", error)
            await asyncio.sleep(_PERIOD_S)

    async def _make_it_so(self, wanted: dict[str, Object]) -> None:
        running: dict[str, Instance] = {}
        for instance in list(self._lab.instances):
            there = wanted.get(str(instance.id))
            if there is None or there["host_id"] != str(instance.host.id):
                await self._lab.unplug(instance)
            else:
                running[str(instance.id)] = instance
        for instance_id in wanted.keys() - running.keys():
            created = wanted[instance_id]
            if created["host_id"] in self._hosts and created["state"] != "DELETING":
                await self._lab.plug_in(created)


async def all_instances(api: Api) -> dict[str, Object]:
    """Every instance that the token may see, by id."""
    found: dict[str, Object] = {}
    query: dict[str, object] = {"limit": _PAGE}
    while True:
        page = await api.get("/instances", **query)
        found |= {item["id"]: item for item in page["items"]}
        if not page.get("next"):
            return found
        query["cursor"] = page["next"]
