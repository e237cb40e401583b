"""DaftEngine: a pipeline as a Daft query."""

from hypernodes.engines.daft.runner import import_daft

import_daft()  # The other modules import Daft as a matter of course; this error says what to install.

from hypernodes.engines.daft.engine import DaftEngine  # noqa: E402

__all__ = ["DaftEngine"]
