"""Instances made, moved and deleted by the thousand: well-formed requests pass FastAPI by.

Its routes cost several times what such a request costs otherwise. What is not plainly right here
(a header twice, a field that is not known, an address that is none) goes on to the route of the
same path, which says what is wrong: this module has no errors of its own, and no reply that the
route would not give.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from achelous_controller.api.creation import KEY_PATTERN, MAX_KEY, request_hash
from achelous_controller.api.instance_writes import InstanceWrites
from achelous_controller.api.middleware import Body, Headers
from achelous_controller.api.models.common import MAX_NAME, NAME_PATTERN
from achelous_controller.domain import networks
from achelous_controller.domain.instances import (
    MAX_BATCH,
    MAX_VNICS,
    InstanceSpec,
    Kind,
    VnicSpec,
)
from achelous_controller.domain.precondition import ANYTHING, Precondition
from achelous_controller.domain.principal import Principal
from achelous_controller.domain.rules import MAX_GROUPS
from achelous_controller.store.idempotency import Claim


def _whole(pattern: str) -> str:
    """A pattern of pydantic for Python's own engine, whose $ matches before a newline, too."""
    return pattern.removesuffix("$") + r"\Z"


class _VnicCreate(msgspec.Struct, forbid_unknown_fields=True):
    subnet_id: UUID
    ip: str | None = None
    ip6: str | None = None
    security_group_ids: Annotated[tuple[UUID, ...], Meta(max_length=MAX_GROUPS)] = ()


_Vnics = Annotated[list[_VnicCreate], Meta(min_length=1, max_length=MAX_VNICS)]


class _InstanceCreate(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=MAX_NAME)]
    vnics: _Vnics
    kind: Kind = Kind.VM
    project_id: UUID | None = None
    host_id: UUID | None = None


class _OfBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Names, ids and vNICs are looked at later: those that many have in common once."""

    name: str
    vnics: msgspec.Raw
    kind: Kind = Kind.VM
    project_id: str | None = None
    host_id: str | None = None


class _BatchCreate(msgspec.Struct, forbid_unknown_fields=True):
    instances: Annotated[list[_OfBatch], Meta(min_length=1, max_length=MAX_BATCH)]


class _InstanceMove(msgspec.Struct, forbid_unknown_fields=True):
    host_id: UUID


class _OtherWay(Exception):
    """The request is for the route to judge."""


_one: Final = msgspec.json.Decoder(_InstanceCreate)
_many: Final = msgspec.json.Decoder(_BatchCreate)
_moved: Final = msgspec.json.Decoder(_InstanceMove)
_vnics: Final = msgspec.json.Decoder(_Vnics)
_name: Final = re.compile(_whole(NAME_PATTERN))
_names: Final = re.compile(rf"(?:{NAME_PATTERN.removeprefix('^').removesuffix('$')}\n)*")
_key: Final = re.compile(_whole(KEY_PATTERN))

_ONE: Final = "/v1/instances"
_MANY: Final = "/v1/instances:batch"
_ID: Final = "/v1/instances/{instance_id}"
_OF_ONE: Final = "/v1/instances/"
_ID_LENGTH: Final = 36

_ROUTES: Final = {path: Route(path, lambda _: Response()) for path in (_ONE, _MANY, _ID)}
"""Where the request went, for the metrics; nothing is served by these."""


class ShortWay:
    """Behind authentication, in front of the application."""

    def __init__(self, writes: InstanceWrites) -> None:
        self._writes = writes

    async def answer(self, scope: Scope, headers: Headers, body: Body) -> Response | None:
        """The reply to a request that is plainly right; None: the route's to give."""
        path, method = scope["path"], scope["method"]
        if len(headers) != len(scope["headers"]):  # one of them is there twice
            return None
        if method == "POST" and path in (_ONE, _MANY):
            return await self._create(scope, headers, await body.whole())
        if path.startswith(_OF_ONE) and len(path) == len(_OF_ONE) + _ID_LENGTH:
            if method == "DELETE":
                return await self._delete(scope, headers)
            if method == "PATCH":
                return await self._move(scope, headers, await body.whole())
        return None

    async def _create(self, scope: Scope, headers: Headers, body: bytes) -> Response | None:
        path, state = scope["path"], scope["state"]
        try:
            claim = _claim(path, headers, state["principal"], body)
            specs = _batch(body) if path == _MANY else [_single(body)]
        except _OtherWay:
            return None
        scope["route"] = _ROUTES[path]
        caller, at = state["principal"], state["accepted_at"]
        if path == _MANY:
            return await self._writes.create_batch(caller, specs, at, claim)
        return await self._writes.create(caller, specs[0], at, claim)

    async def _delete(self, scope: Scope, headers: Headers) -> Response | None:
        try:
            instance_id = UUID(scope["path"][len(_OF_ONE) :])
        except ValueError:
            return None
        scope["route"] = _ROUTES[_ID]
        state = scope["state"]
        return await self._writes.delete(
            state["principal"], instance_id, _match(headers), state["accepted_at"]
        )

    async def _move(self, scope: Scope, headers: Headers, body: bytes) -> Response | None:
        try:
            _must_be_json(headers)
            instance_id = UUID(scope["path"][len(_OF_ONE) :])
            host_id = _moved.decode(body).host_id
        except (_OtherWay, msgspec.DecodeError, ValueError):
            return None
        scope["route"] = _ROUTES[_ID]
        state = scope["state"]
        return await self._writes.move(
            state["principal"], instance_id, _match(headers), state["accepted_at"], host_id
        )


def _match(headers: Headers) -> Precondition:
    tags = headers.get(b"if-match")
    return ANYTHING if tags is None else Precondition.parse(tags.decode("latin-1"))


def _must_be_json(headers: Headers) -> None:
    if headers.get(b"content-type") != b"application/json":
        raise _OtherWay


def _claim(path: str, headers: Headers, caller: Principal, body: bytes) -> Claim | None:
    """Of the Idempotency-Key, if there is one and all headers are as expected."""
    _must_be_json(headers)
    given = headers.get(b"idempotency-key")
    if given is None:
        return None
    key = given.decode("latin-1")
    if len(key) > MAX_KEY or not _key.fullmatch(key):
        raise _OtherWay
    return Claim(caller.token_id, key, request_hash("POST", path, body))


def _single(body: bytes) -> InstanceSpec:
    try:
        wanted = _one.decode(body)
        vnics = tuple([_vnic(vnic) for vnic in wanted.vnics])
    except (msgspec.DecodeError, ValueError):
        raise _OtherWay from None
    if not _name.match(wanted.name):
        raise _OtherWay
    return InstanceSpec(wanted.name, wanted.kind, wanted.project_id, wanted.host_id, vnics)


def _batch(body: bytes) -> list[InstanceSpec]:
    try:
        return _specs(_many.decode(body).instances)
    except (msgspec.DecodeError, ValueError):
        raise _OtherWay from None


def _specs(wanted: Sequence[_OfBatch]) -> list[InstanceSpec]:
    """What is written alike becomes one object, which the store looks at once."""
    names = [each.name for each in wanted]
    if max(map(len, names)) > MAX_NAME or not _names.fullmatch("\n".join([*names, ""])):
        raise _OtherWay
    ids, vnics = _Ids(), _SameVnics()
    return [
        InstanceSpec(
            each.name, each.kind, ids[each.project_id], ids[each.host_id], vnics[bytes(each.vnics)]
        )
        for each in wanted
    ]


class _Ids(dict[str | None, UUID | None]):
    """Ids by their text."""

    def __missing__(self, text: str | None) -> UUID | None:
        found = self[text] = msgspec.convert(text, UUID | None)
        return found


class _SameVnics(dict[bytes, tuple[VnicSpec, ...]]):
    """vNICs of an instance by their text."""

    def __missing__(self, text: bytes) -> tuple[VnicSpec, ...]:
        found = self[text] = tuple([_vnic(vnic) for vnic in _vnics.decode(text)])
        return found


def _vnic(wanted: _VnicCreate) -> VnicSpec:
    groups = wanted.security_group_ids
    if len(groups) > 1 and len(set(groups)) != len(groups):
        raise _OtherWay
    return VnicSpec(
        wanted.subnet_id,
        None if wanted.ip is None else networks.parse_address(wanted.ip),
        None if wanted.ip6 is None else networks.parse_address6(wanted.ip6),
        groups,
    )
