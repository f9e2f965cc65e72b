"""Coverage-guided fuzzing of RSP: `make fuzz` for 60 s; inputs that are worth keeping are kept.

`PYTHONPATH=tests python -m fuzz.fuzz_rsp tests/fuzz/corpus/rsp -max_total_time=60`: arguments are
libFuzzer's.
"""

import sys

import atheris

with atheris.instrument_imports(include=["achelous_shared", "achelous_gateway"]):
    from fuzz.rsp_target import RspTarget


def main() -> None:
    """Fuzz until libFuzzer ends the process; a finding is written to ./crash-<hash>."""
    atheris.Setup(sys.argv, RspTarget())
    atheris.Fuzz()


if __name__ == "__main__":
    main()
