"""Feed the parsers bytes that reach new code, guided by coverage. This is not part of the tests. Run it by hand:

    pip install atheris
    python tests/fuzz_parsers.py -max_total_time=600 -max_len=600 [CORPUS]

The first byte of an input chooses the parser, the second one the place at which the rest is split. If an input breaks
a check, the run ends and the input is kept in a file crash-*. Pass that file as an argument to repeat it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["pushrelay", "socketio.packet"]):
    import parser_checks as checks

CONTENT_TYPES = ["application/json", "", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"]


def check_one(data):
    if len(data) < 2:
        return
    kind, cut, data = data[0] % 8, data[1], data[2:]
    if kind < 2:
        checks.check_http(data, [cut, 2 * cut])
    elif kind < 4:
        checks.check_websocket(data, [cut, 2 * cut])
    elif kind == 4:
        checks.check_payload(data)
    elif kind == 5:
        checks.check_packet(data.decode("utf-8", "replace"))
    else:
        checks.check_push(data, CONTENT_TYPES[cut % 4])


if __name__ == "__main__":
    atheris.Setup(sys.argv, check_one)
    atheris.Fuzz()
