"""``python -m hypernodes``: the command, where the script of that name is not on the path."""

from hypernodes.cli import main

if __name__ == "__main__":
    main(prog_name="hypernodes")
