"""``python -m hypernodes``: the command ``hypernodes``, for environments whose scripts are not on the PATH."""

from hypernodes.cli import main

if __name__ == "__main__":
    main(prog_name="hypernodes")
