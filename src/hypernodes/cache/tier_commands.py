"""What a user can do with a cache and its remote tier."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypernodes.cache.backend import BackendHandle
    from hypernodes.cache.inventory import Compaction, Stats


class TierCommands:
    """The methods of a cache that concern its remote tier; a `ValueError` says that there is none.

    Raises:
        ConnectionError: The tier cannot be reached, or refuses the request.
    """

    remote: str | None
    _store: BackendHandle

    @abstractmethod
    def write_delayed(self) -> None:
        """Write all delayed entries to the directory."""

    def delete(self, *signatures: str) -> int:
        """Drop the entries with these signatures, also in the remote tier; return their number."""
        self.write_delayed()
        number = 0 if self.remote is None else self._store.with_tier().delete_remote(signatures)
        return max(number, self._store.get().delete(signatures))

    def push(self) -> int:
        """Write all entries of the directory that the remote tier lacks, and return their number."""
        self.write_delayed()
        return self._store.with_tier().push()

    def pull(self) -> int:
        """Read all entries of the remote tier that the directory lacks, and return their number."""
        self.write_delayed()
        return self._store.with_tier().pull()

    def compact(self, *, grace: float = 3600.0) -> Compaction:
        """Merge small segments of the remote tier, and delete what nothing needs any more.

        Args:
            grace: Seconds for which merged segments stay, since other processes may be about to read them.
        """
        return self._store.with_tier().compact(grace)

    def remote_stats(self) -> Stats:
        """Return the number of entries and bytes of the remote tier, in all and by node."""
        return self._store.with_tier().stats()
