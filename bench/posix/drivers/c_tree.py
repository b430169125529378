"""A generated source tree of 300 C files with a Makefile as kernels have them. Usage: DIRECTORY."""

from __future__ import annotations

import sys
from pathlib import Path

PARTS = 300
HEADERS = 20
MAKEFILE = """CFLAGS = -O0 -MMD -MP -Iinclude
objects = $(patsubst %.c,%.o,$(wildcard *.c))
program: built.a main/main.o ; $(CC) -o $@ main/main.o built.a
built.a: $(objects) ; rm -f $@ && ar rcs $@ $^
main/main.o: main/main.c ; $(CC) $(CFLAGS) -c -o $@ $<
clean: ; rm -f program built.a *.o *.d main/*.o main/*.d
-include $(objects:.o=.d) main/main.d
"""


def main(directory: str) -> int:
    """Make the tree; the program built of it exits with 0 if all parts are in it."""
    root = Path(directory)
    (root / "include").mkdir(parents=True)
    (root / "main").mkdir()
    for number in range(HEADERS):
        below = f'#include "h{number - 1}.h"\n' if number else ""
        text = f"#pragma once\n{below}#define H{number} {number}\n"
        (root / "include" / f"h{number}.h").write_text(text)
    for number in range(PARTS):
        header = number % HEADERS
        text = (
            f'#include "h{header}.h"\nint part{number}(void) {{ return H{header} + {number}; }}\n'
        )
        (root / f"part{number}.c").write_text(text)
    total = sum(number + number % HEADERS for number in range(PARTS))
    declared = "".join(f"int part{number}(void);\n" for number in range(PARTS))
    added = " + ".join(f"part{number}()" for number in range(PARTS))
    text = f"{declared}int main(void) {{ return {added} == {total} ? 0 : 1; }}\n"
    (root / "main" / "main.c").write_text(text)
    (root / "Makefile").write_text(MAKEFILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
