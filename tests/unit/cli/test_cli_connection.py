"""Which API and which token a command uses."""

from pathlib import Path

import pytest

from achelous_cli.connection import Connection, checked_nats, connection, nats_of_current
from achelous_cli.failures import ExitCode, Failure
from achelous_shared import current


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with the token "secret"."""
    file = tmp_path / "token"
    file.write_text("secret\n")
    return file


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_options_win_over_the_environment(token: Path) -> None:
    environment = {"ACHELOUS_URL": "http://other", "ACHELOUS_TOKEN": "other"}
    assert connection("http://a:1/", token, environment) == Connection(
        "http://a:1", "--url", "secret"
    )


def test_the_environment_gives_url_and_token_or_its_file(token: Path) -> None:
    both = {"ACHELOUS_URL": "http://a:1", "ACHELOUS_TOKEN_FILE": str(token)}
    assert connection(None, None, both).token == "secret"  # noqa: S105  no real token
    assert connection(None, None, {**both, "ACHELOUS_TOKEN": "t"}).token == "t"  # noqa: S105


def test_the_platform_that_runs_here_is_the_default(token: Path) -> None:
    platform = current.CurrentPlatform(url="http://127.0.0.1:7", token_file=str(token))
    with current.announced(platform):
        found = connection(None, None, {})
        assert (found.url, found.token) == ("http://127.0.0.1:7", "secret")
        assert current.path().stat().st_mode & 0o777 == 0o600
    assert current.read() is None


def test_the_platform_s_token_goes_to_no_other_url(token: Path) -> None:
    platform = current.CurrentPlatform(url="http://127.0.0.1:7", token_file=str(token))
    with current.announced(platform), pytest.raises(Failure, match="no token for http://else"):
        connection("http://elsewhere", None, {})


def test_its_bus_is_for_its_own_url_only(token: Path) -> None:
    platform = current.CurrentPlatform(
        url="http://127.0.0.1:7", token_file=str(token), nats_url_file=str(token)
    )
    elsewhere = Connection("http://elsewhere", "--url", "t")
    with current.announced(platform):
        assert nats_of_current(connection(None, None, {})) == "secret"
        with pytest.raises(Failure, match="the bus of http://elsewhere is not known"):
            nats_of_current(elsewhere)


@pytest.mark.parametrize("url", ["http://a:1", "nats://", "nats://u:p@host", "nats://u:p@[::1"])
def test_what_is_no_bus_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(Failure, match="nats://USER:PASSWORD@HOST:PORT"):
        checked_nats(url)
    assert checked_nats("nats://u:p@host:4222") == "nats://u:p@host:4222"


def test_the_end_of_an_older_platform_leaves_the_newer_one_announced(token: Path) -> None:
    older = current.CurrentPlatform(url="http://127.0.0.1:7", token_file=str(token))
    newer = current.CurrentPlatform(url="http://127.0.0.1:8", token_file=str(token))
    old = current.announced(older)
    old.__enter__()
    with current.announced(newer):
        old.__exit__(None, None, None)
        assert current.read() == newer


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://a", "http://", "http://[::1", "http://a:x"])
def test_a_url_that_is_none_is_wrong_usage(url: str) -> None:
    with pytest.raises(Failure, match="is no URL") as caught:
        connection(url, None, {"ACHELOUS_TOKEN": "t"})
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("text", [b"", b"two words", b"caf\xc3\xa9", b"\xff\xfe"])
def test_a_file_that_holds_no_token_is_wrong_usage_and_is_not_repeated(
    tmp_path: Path, text: bytes
) -> None:
    file = tmp_path / "odd"
    file.write_bytes(text)
    with pytest.raises(Failure, match="odd") as caught:
        connection("http://a", file, {})
    assert caught.value.code is ExitCode.USAGE
    assert "two words" not in str(caught.value)


def test_nothing_given_and_nothing_running_says_what_to_give(state: Path) -> None:
    with pytest.raises(Failure, match="give --url and --token-file") as caught:
        connection(None, None, {})
    assert str(state / "achelous" / "current.json") in str(caught.value)


def test_a_damaged_announcement_says_so(state: Path) -> None:
    current.path().parent.mkdir(parents=True)
    current.path().write_text("{")
    with pytest.raises(Failure, match="names no platform"):
        connection(None, None, {})
