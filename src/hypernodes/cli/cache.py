"""``hypernodes cache``: inspect and maintain a cache."""

from __future__ import annotations

import os
import re
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hypernodes.cache.summary import printable
from hypernodes.cli.output import ago, as_bytes, as_seconds, print_json, print_table
from hypernodes.exceptions import ExtraMissingError

if TYPE_CHECKING:
    from hypernodes.cache.disk import DiskCache
    from hypernodes.cache.inventory import Entry, Stats


_PATH_VARIABLE: Final = "HYPERNODES_CACHE"
_REMOTE_VARIABLE: Final = "HYPERNODES_CACHE_REMOTE"
_NEED_REMOTE: Final = frozenset({"push", "pull", "compact"})
_DEFAULT_PATH: Final = Path(".cache")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MAX_LIMIT: Final = 10**9
SHOWN_DIGITS: Final = 12
"""Digits of a signature that are shown: 48 bits, which are distinct for all entries of a cache."""


class _Age(click.ParamType):  # type: ignore[type-arg]
    """A duration with a unit, as in ``12h``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if (found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value))) is None:
            self.fail(f"{value!r} is not an age. Write 30s, 5m, 12h, 7d or 2w.", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


_GROUP_OPTIONS: Final = ("--path", "--key-file", "--remote")


class _CacheGroup(click.Group):
    """A group whose options may stand behind a command, and which reports in one line what it cannot read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first, others = [], []
        rest = iter(args)
        for word in rest:
            if word.partition("=")[0] not in _GROUP_OPTIONS:
                others.append(word)
            elif "=" in word:
                first.append(word)
            elif (value := next(rest, None)) is not None:
                first += [word, value]
            else:
                raise click.BadOptionUsage(word, f"Option {word!r} requires an argument.", ctx)
        return super().parse_args(ctx, [*first, *others])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (sqlite3.Error, OSError, ExtraMissingError) as error:
            raise click.ClickException(
                f"cache {str(ctx.params['path'])!r} cannot be used: {printable(str(error))}."
            ) from error


@click.group(cls=_CacheGroup)
@click.option(
    "--path",
    type=click.Path(path_type=Path, file_okay=False),
    envvar=_PATH_VARIABLE,
    default=_DEFAULT_PATH,
    show_default=True,
    show_envvar=True,
    help="The directory of the cache.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with the key of the seals; by default HYPERNODES_CACHE_KEY.",
)
@click.option(
    "--remote",
    metavar="URL",
    envvar=_REMOTE_VARIABLE,
    show_envvar=True,
    help="The remote tier of the cache: s3://bucket/prefix, gs://..., az://..., file:///directory.",
)
@click.pass_context
def cache(ctx: click.Context, path: Path, key_file: Path | None, remote: str | None) -> None:
    """Inspect and maintain a cache. The options may also stand behind a command."""
    is_cleared = ctx.invoked_subcommand == "clear" and any(path.glob("??/??/*.val"))
    if ctx.invoked_subcommand in _NEED_REMOTE and remote is None:
        raise click.UsageError(
            f"{ctx.invoked_subcommand} needs a remote tier: hypernodes cache --remote s3://bucket/prefix "
            f"{ctx.invoked_subcommand}, or set {_REMOTE_VARIABLE}."
        )
    if not (os.path.lexists(path / "cache.db") or is_cleared or remote):
        raise click.UsageError(
            f"there is no cache in {str(path)!r}. Name its directory: hypernodes cache --path DIR, or set "
            f"{_PATH_VARIABLE}."
        )
    from hypernodes.cache.disk import DiskCache

    try:
        key = key_file.read_bytes().strip() if key_file else None
        made = DiskCache(path, key=key, remote=remote)
    except ValueError as error:  # The key is empty, or the address is not one.
        raise click.UsageError(str(error)) from error
    ctx.obj = ctx.with_resource(made)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@cache.command()
@_as_json
@click.pass_obj
def stats(cache: DiskCache, *, as_json: bool) -> None:
    """Count entries, bytes and hits, by node."""
    found, remote = cache.stats(), None if cache.remote is None else cache.remote_stats()
    if as_json:
        print_json(asdict(found) | ({} if remote is None else {"remote": asdict(remote)}))
        return
    if remote is not None:
        click.echo(f"{cache.path}:")
    _print_stats(found)
    if remote is not None:
        click.echo(f"{cache.remote}:")
        _print_stats(remote, has_hits=False)


def _print_stats(found: Stats, *, has_hits: bool = True) -> None:
    rows = [
        (name or "(unknown)", f"{node.entries:,}", as_bytes(node.bytes), f"{node.hits:,}")
        for name, node in sorted(found.by_node.items(), key=lambda item: -item[1].bytes)
    ]
    total = ("all", f"{found.entries:,}", as_bytes(found.bytes), f"{found.hits:,}")
    shown = 4 if has_hits else 3
    print_table(
        ("node", "entries", "size", "hits")[:shown],
        [row[:shown] for row in rows],
        total=total[:shown],
        right=range(1, shown),
    )


@cache.command()
@_as_json
@click.pass_obj
def push(cache: DiskCache, *, as_json: bool) -> None:
    """Write all entries that the remote tier lacks to it."""
    number = cache.push()
    print_json({"pushed": number}) if as_json else click.echo(f"{number:,} entries pushed to {cache.remote}.")


@cache.command()
@_as_json
@click.pass_obj
def pull(cache: DiskCache, *, as_json: bool) -> None:
    """Read all entries of the remote tier that the directory lacks."""
    number = cache.pull()
    print_json({"pulled": number}) if as_json else click.echo(f"{number:,} entries pulled to {cache.path}.")


@cache.command()
@click.option(
    "--grace",
    type=_Age(),
    default="1h",
    show_default=True,
    metavar="AGE",
    help="How long merged segments stay, since processes that run now may read them.",
)
@_as_json
@click.pass_obj
def compact(cache: DiskCache, grace: float, *, as_json: bool) -> None:
    """Merge small segments of the remote tier, and delete what is not needed any more."""
    found = cache.compact(grace=grace)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(
            f"{found.merged:,} segments merged, {found.deleted:,} segments and {found.values:,} large values "
            "deleted."
        )


@cache.command("ls")
@click.option("--node", help="Entries of this node only.")
@click.option(
    "--limit",
    type=click.IntRange(0, _MAX_LIMIT),
    default=50,
    show_default=True,
    help="The maximal number of entries.",
)
@_as_json
@click.pass_obj
def list_entries(cache: DiskCache, node: str | None, limit: int, *, as_json: bool) -> None:
    """List entries, the latest first."""
    found = list(cache.entries(node, limit=limit))
    if as_json:
        print_json([_described(entry) for entry in found])
        return
    rows = [
        (
            entry.signature[:SHOWN_DIGITS],
            entry.node,
            as_bytes(entry.size),
            ago(entry.stored),
            "" if entry.about is None else as_seconds(entry.about.seconds),
            "" if entry.about is None else _inputs(entry),
        )
        for entry in found
    ]
    print_table(("signature", "node", "size", "stored", "took", "from"), rows, right=(2, 4))


@cache.command()
@click.argument("signature")
@click.option("--value", is_flag=True, help="Show the value, too. This unpickles it, which can run code.")
@_as_json
@click.pass_obj
def show(cache: DiskCache, signature: str, *, value: bool, as_json: bool) -> None:
    """Show how the entry SIGNATURE was computed. The first digits of the signature suffice."""
    entry = _find(cache, signature)
    described = _described(entry)
    if value:
        from hypernodes.text import short

        described["value"] = short(cache.get(entry.signature), 1000)
    if as_json:
        print_json(described)
        return
    rows = [("signature", entry.signature), ("node", entry.node), ("size", as_bytes(entry.size))]
    rows += [("stored", ago(entry.stored)), ("used", ago(entry.used))]
    if entry.about is not None:
        rows += [("took", as_seconds(entry.about.seconds)), ("code", entry.about.code)]
        for name, taken in entry.about.arguments.items():
            rows.append((f"from {name}", taken.summary or f"{taken.producer or 'input'} {taken.identity}"))
    if value:
        rows.append(("value", described["value"]))
    print_table(("", ""), rows)


@cache.command()
@click.argument("signature")
@_as_json
@click.pass_obj
def explain(cache: DiskCache, signature: str, *, as_json: bool) -> None:
    """Explain why the entry SIGNATURE was computed although the node had other entries.

    The entry is compared with the most similar entry of the same node, preferably an earlier one.
    """
    from hypernodes.cache.compare import Candidates, differences

    entry = _find(cache, signature)
    if entry.about is None:
        raise click.ClickException(
            f"entry {printable(entry.signature)} has no record of how it was computed."
        )
    others = [other for other in cache.entries(entry.node) if other.signature != entry.signature]
    earlier = [other for other in others if other.stored <= entry.stored] or others
    by_provenance = {id(other.about): other for other in earlier if other.about is not None}
    like = Candidates(
        [other.about for other in by_provenance.values() if other.about is not None]
    ).most_similar(entry.about)
    if like is None:
        changes, other = [], None
    else:
        other = by_provenance[id(like)]
        changes = differences(
            entry.about, like, cache.code_parts(entry.about.code), cache.code_parts(like.code)
        )
    if as_json:
        compared = None if other is None else other.signature
        print_json(
            {"signature": entry.signature, "compared_with": compared, "changes": list(map(asdict, changes))}
        )
        return
    if other is None:
        click.echo(f"It is the only entry of {printable(entry.node)}.")
        return
    node, like_it = printable(entry.node), printable(other.signature[:SHOWN_DIGITS])
    click.echo(f"{node}, compared with {like_it}, stored {ago(other.stored)}:")
    for change in changes:
        click.echo(f"  {change}")


@cache.command()
@click.option("--node", help="Entries of this node only.")
@click.option("--older-than", type=_Age(), metavar="AGE", help="Entries not used for this long: 30s, 7d.")
@click.option("--both", is_flag=True, help="Drop them in the remote tier, too, for all who share it.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_as_json
@click.pass_obj
def clear(
    cache: DiskCache, node: str | None, older_than: float | None, *, both: bool, yes: bool, as_json: bool
) -> None:
    """Drop all entries, or those that the options select."""
    if both and cache.remote is None:
        raise click.UsageError(
            f"--both needs a remote tier: hypernodes cache --remote URL, or {_REMOTE_VARIABLE}."
        )
    which = "all entries" if node is None and older_than is None else "these entries"
    where = f"{cache.path} and {cache.remote}" if both else str(cache.path)
    if not (yes or as_json):
        click.confirm(f"Drop {which} of {where}?", abort=True)
    dropped = cache.clear(node=node, older_than=older_than, remote=both)
    if as_json:
        print_json({"dropped": dropped})
    else:
        click.echo(f"{dropped:,} entries dropped.")


@cache.command()
@click.option("--drop", is_flag=True, help="Drop entries that are damaged or sealed with another key.")
@_as_json
@click.pass_context
def verify(ctx: click.Context, *, drop: bool, as_json: bool) -> None:
    """Read all entries and check their seals. The exit code is 1 if an entry is damaged."""
    found = ctx.obj.verify(drop=drop)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(f"{found.whole:,} entries are whole, {len(found.damaged):,} are not.")
        for signature, why in found.damaged.items():
            click.echo(f"  {printable(signature)} {why}{', and was dropped' if drop else ''}")
        if found.orphans:
            click.echo(f"{found.orphans:,} files without an entry were removed.")
    if found.damaged and not drop:
        ctx.exit(1)


def _find(cache: DiskCache, start: str) -> Entry:
    """Return the entry whose signature begins with some digits, which only one may do."""
    found = list(cache.entries(start=start))
    if len(found) != 1:
        many = f"{len(found)} entries have signatures" if found else "no entry has a signature"
        raise click.ClickException(f"{many} that begin{'' if found else 's'} with {start!r}. See: ls.")
    return found[0]


def _described(entry: Entry) -> dict[str, Any]:
    described = asdict(entry)
    if entry.about is not None:
        described["about"] = {
            "node": entry.about.node,
            "code": entry.about.code,
            "takes": {
                name: {"identity": taken.identity, "made_by": taken.producer, "shown": taken.summary}
                for name, taken in entry.about.arguments.items()
            },
            "seconds": entry.about.seconds,
        }
    return described


def _inputs(entry: Entry) -> str:
    takes = {} if entry.about is None else entry.about.arguments
    return ", ".join(
        f"{name}={taken.summary}"
        if taken.summary
        else name + (f" ← {taken.producer}" if taken.producer else "")
        for name, taken in takes.items()
    )
