"""`relay` of an installed relay, and `python -m pushrelay`: the same program as `python relay.py`."""

import runpy


def main() -> None:
    """Run relay.py with the arguments of the command line."""
    runpy.run_module("relay", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
