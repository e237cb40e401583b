"""examples/command_line: its README is a transcript, and the commands print what it shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "command_line"
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def test_the_transcript_of_the_example_is_what_its_commands_print(tmp_path):
    directory = shutil.copytree(EXAMPLE, tmp_path / "example")
    (transcript,) = re.findall(r"```console\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    commands = COMMAND.findall(transcript)
    assert len(commands) > 5
    python = f'hypernodes() {{ {sys.executable} -m hypernodes "$@"; }}\n'
    script = python + "".join(
        f"{command}\ncode=$?; echo '=== end'; (exit $code)\n" for command, _ in commands
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    printed = done.stdout.split("=== end\n")
    for (command, shown), found in zip(commands, printed, strict=False):
        pattern = re.escape(shown).replace(r"\.\.\.", ".*")
        assert re.fullmatch(pattern, found, re.DOTALL), f"{command}\n{found}"
