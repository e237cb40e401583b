"""``python -m hypernodes``: the same as the command ``hypernodes``, where scripts are not on the PATH."""

from hypernodes.cli import main

if __name__ == "__main__":
    main(prog_name="hypernodes")
