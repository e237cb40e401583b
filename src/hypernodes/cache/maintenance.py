"""What a user does with a cache beside runs: look into it, clear it, check it, copy it to its tier."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING

from hypernodes.cache import inspection, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.cache.backend import BackendHandle
    from hypernodes.cache.inventory import Compaction, Entry, Stats, Verification


class Maintenance:
    """The methods of a cache for its user, and for ``hypernodes cache``.

    Raises:
        ConnectionError: The remote tier cannot be reached, or refuses the request.
        ValueError: A method concerns the remote tier, and there is none.
    """

    remote: str | None
    _store: BackendHandle
    _key: bytes | None
    _known_codes: set[str]

    @abstractmethod
    def write_delayed(self) -> None:
        """Write all delayed entries to the directory."""

    def entries(self, node: str | None = None, *, start: str = "", limit: int = -1) -> Iterator[Entry]:
        """Iterate over entries, the latest first.

        Args:
            node: The node whose entries are wanted; all by default.
            start: The first characters of their signatures.
            limit: The largest number of entries; -1 for all.
        """
        self.write_delayed()
        yield from inspection.entries(self._store.get(), self._key, node, start, limit)

    def stats(self) -> Stats:
        """Return the number of entries, bytes and hits of the directory, in all and by node."""
        processes.write_delayed()
        return inspection.stats(self._store.get())

    def clear(self, *, node: str | None = None, older_than: float | None = None, remote: bool = False) -> int:
        """Drop entries of the directory, and return their number.

        Without arguments this works on a directory with a damaged database, too, which is then removed.

        Args:
            node: The node whose entries are dropped; all by default.
            older_than: Seconds. Entries that were used since then are kept; in the remote tier, those that
                were written since then.
            remote: Whether to drop entries of the remote tier, for all that share it. Otherwise look-ups find
                them there again.
        """
        self.write_delayed()
        self._known_codes.clear()
        if remote:
            before = None if older_than is None else time.time() - older_than
            self._store.with_tier().clear_remote(node, before)
        if node is None and older_than is None:
            return self._store.clear()
        return self._store.get().clear(node, None if older_than is None else time.time() - older_than)

    def verify(self, *, drop: bool = False) -> Verification:
        """Read every entry and check its seal.

        Args:
            drop: Whether to drop entries that are damaged, or sealed with another key.
        """
        self.write_delayed()
        return inspection.verify(self._store.get(), self._key, drop=drop)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the signatures of all entries."""
        return (found.signature for found in self.entries())

    def __len__(self) -> int:
        self.write_delayed()
        return sum(count for count, _ in self._store.get().by_tag().values())

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
