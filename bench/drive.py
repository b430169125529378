"""Entry of a driver process: one call, named on the first line of stdin.

Kept apart from the runner's side so that the process starts quickly and a
mount that hangs takes only this process with it.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback

from bench import channel


def main() -> int:
    """Read {function, arguments}, call it, answer with its result or its error."""
    channel.open_channel()
    order = json.loads(sys.stdin.readline())
    module, _, name = order["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(*order["arguments"])
    except BaseException as error:  # the runner prints it in the cell
        traceback.print_exc()
        channel.send("error", f"{type(error).__name__}: {error}")
        return 1
    channel.send("result", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
