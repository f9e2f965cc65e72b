"""Controllers as processes of their own: start, outage, end, and any request at all."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from api.client import Api, Json, fresh, problem_of
from hypothesis import settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from achelous_lab.process import Process
from achelous_lab.rundir import RunDir
from achelous_lab.servers.nats import NatsServer
from achelous_lab.servers.postgres import PostgresServer
from achelous_lab.waiting import wait_until
from achelous_shared.bus_roles import Role
