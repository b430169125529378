"""Compilers and package tools at work on the target."""

from __future__ import annotations

from bench.posix.program import Program

GROUP = "building"

PROGRAMS = (
    Program(
        "make",
        GROUP,
        "300 C files built by make -j4 with dependency files; a second make builds nothing",
        """
        "$PYTHON" -m bench.posix.drivers.c_tree "$HERE/src"
        cd src
        make -s -j4
        ./program
        make -q
        sleep 1.1; touch part7.c
        make -n | grep -c part7.o | grep -qx 2
        make -s -j4
        ./program
        make -s clean
        [ ! -e program ]
        """,
        packages=("gcc", "make", "libc6-dev"),
        limit_s=240.0,
    ),
    Program(
        "venv",
        GROUP,
        "python -m venv with pip; a package built, installed, run, removed",
        """
        "$PYTHON" -m venv env
        mkdir -p w/sample w/sample-1.dist-info
        echo 'def main(): print("sample runs")' > w/sample/__init__.py
        info=w/sample-1.dist-info
        printf 'Metadata-Version: 2.1\\nName: sample\\nVersion: 1\\n' > $info/METADATA
        printf 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n' \\
            > $info/WHEEL
        printf '[console_scripts]\\nsample = sample:main\\n' > $info/entry_points.txt
        touch $info/RECORD
        (cd w && "$PYTHON" -m zipfile -c ../sample-1-py3-none-any.whl sample sample-1.dist-info)
        env/bin/pip install --no-index ./sample-1-py3-none-any.whl
        env/bin/sample
        env/bin/pip check
        env/bin/pip uninstall -y sample
        [ ! -e env/bin/sample ]
        """,
        limit_s=400.0,
    ),
    Program(
        "compile",
        GROUP,
        "the standard library compiled to .pyc by two processes, imported from a zip",
        """
        cp -r "$("$PYTHON" -c 'import json; print(json.__path__[0])')" json
        rm -rf json/__pycache__
        unset PYTHONDONTWRITEBYTECODE
        "$PYTHON" -m compileall -q -j 2 json
        [ "$(ls json/__pycache__ | wc -l)" -ge 5 ]
        "$PYTHON" -c 'import json; print(json.__file__)' | grep -q "$HERE"
        "$PYTHON" -m zipapp json -m json.tool:main -o tool.pyz
        echo '{}' | "$PYTHON" tool.pyz
        """,
    ),
)
