"""A tier of entries behind the directory of a cache, in an object store or a shared file system.

    TieredStore ─┬─▶ Store        the directory of this host
                 ├─▶ RemoteTier   looks up and reads what the directory lacks, and writes segments
                 │    ├─ known.py     which entries are in which segment, in a database of this host
                 │    ├─ segment.py   the format of segments
                 │    └─ objects.py   bytes by name, through obstore
                 └─▶ Pusher       writes what the directory has and the tier lacks, behind the run

Objects of the tier never change. A *segment* is an object with many small entries and an index of them; a
large value is an object of its own, which the index of a segment names. A writer takes a new name for each
segment, so that writers need neither locks nor a server, and a reader needs the index of a segment once.
"""
