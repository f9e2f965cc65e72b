"""What `--help` promises: an example of every command, which the command itself accepts."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from achelous_cli.main import build, run


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            yield from _leaves(sub, (*path, name))
        else:
            yield (*path, name), sub


LEAVES = dict(_leaves(get_command(build())))


@pytest.mark.parametrize("path", [path for path in LEAVES if path != ("version",)], ids=" ".join)
def test_every_command_has_help_of_its_own_and_an_example_that_it_accepts(
    path: tuple[str, ...],
) -> None:
    command = LEAVES[path]
    example = command.epilog.rpartition("\n")[2]

    words = shlex.split(example)

    assert words[: len(path) + 1] == ["achelous", *path]
    assert command.help
    command.make_context(path[-1], words[len(path) + 1 :])


def test_every_command_knows_json() -> None:
    lacking = [
        path for path, command in LEAVES.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    ]  # fmt: skip
    assert lacking == []


def test_no_option_takes_a_token_where_ps_would_show_it() -> None:
    options = {opt for command in LEAVES.values() for param in command.params for opt in param.opts}
    options |= {opt for param in get_command(build()).params for opt in param.opts}
    assert {option for option in options if "token" in option} == {
        "--token-file",
        "--operator-token-file",
    }


@pytest.mark.parametrize("code", ["0", "1", "2", "3", "4", "5", "130"])
def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str], code: str) -> None:
    assert run(["--help"]) == 0
    assert f"\n    {code} " in capsys.readouterr().out


def test_wrong_usage_is_2_and_a_problem_document_with_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["vpc", "create", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["detail"] == "Missing argument 'NAME'."
    assert run(["vpc", "creat"]) == 2
    assert "Did you mean 'create'?" in capsys.readouterr().err
