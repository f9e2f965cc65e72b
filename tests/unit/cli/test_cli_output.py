"""Tables and figures."""

import pytest

from achelous_cli.failures import Document
from achelous_cli.instance_specs import parse_nic
from achelous_cli.output import columns, plain, print_details, print_table
from achelous_cli.units import millis, percent, seconds, volume


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ([], "-"),
        ({}, "-"),
        (0, "0"),
        (True, "yes"),
        (False, "no"),
        (["a", 1], "a,1"),
        ({"a": 1, "b": None}, "a=1 b=-"),
        ("zwölf", "zwölf"),
        ("\x1b[31mred\n", "\\x1b[31mred\\n"),
    ],
)
def test_a_value_takes_one_line_and_moves_no_cursor(value: object, shown: str) -> None:
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0000042, "4.2 us"),
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (119.0, "119 s"),
        (150.0, "2 min 30 s"),
        (7500.0, "2 h 5 min"),
    ],
)
def test_durations(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_shares_and_volumes() -> None:
    assert (percent(0.5), volume(999), volume(1_500_000), millis(30)) == (
        "50%", "999 B", "1.5 MB", "30 ms",
    )  # fmt: skip


def test_a_table_without_a_terminal_is_aligned_and_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows: list[Document] = [{"id": "x" * 300, "host_id": None}, {"id": "y"}]
    print_table(columns("id", "host_id"), rows, empty="none")
    assert capsys.readouterr().out == (f"{'ID':300}  HOST ID\n{'x' * 300}  -\n{'y':300}  -\n")


def test_an_empty_table_says_so_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(columns("id"), [], empty="no VPCs")
    assert capsys.readouterr() == ("", "no VPCs\n")


def test_details_show_lists_as_tables_below(capsys: pytest.CaptureFixture[str]) -> None:
    group = {"name": "web", "rules": [{"id": "r1"}]}
    print_details(group, {"rules": columns("id")})
    assert capsys.readouterr().out == "name  web\n\nrules\nID\nr1\n"


def test_a_nic_names_subnet_address_and_groups() -> None:
    assert parse_nic("subnet=prod/web") == {"subnet_id": "prod/web"}
    assert parse_nic("group=a,subnet=web,ip=10.0.0.7,group=b") == {
        "subnet_id": "web",
        "ip": "10.0.0.7",
        "security_group_ids": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "says nothing"),
        ("web", "'web' says nothing"),
        ("subnet=", "says nothing"),
        ("ip=10.0.0.7", "the subnet is missing"),
        ("subnet=a,subnet=b", "subnet is given twice"),
        ("subnet=a,mac=02:00:00:00:00:01", "'mac' is not known"),
        ("subnet=a,,ip=10.0.0.7", "says nothing"),
    ],
)
def test_a_nic_that_makes_no_sense_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_nic(text)
