"""The worker's statements: numbered once for all, prepared once on a connection, and run in few steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Self, TypeAlias
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from shared.db.engine import Connection
from shared.db.libpq import Adapter, answer, answer_before_commit

_PLACEHOLDER = re.compile(rb"%(?:%|\((\w+)\)[sb])")
_NUMBERS = count()
Rows: TypeAlias = list[tuple[Any, ...]]
KINDS_MAX = 8
"""So often at most a statement is prepared on one connection, each time for parameters of other types."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A statement whose placeholders are numbered, as the server takes them.

    A cursor numbers them at each run where a text is longer than 4,096 bytes, as all of the writer's are; then the
    text is new, and is hashed anew to find out that the server knows it.
    """

    text: bytes
    names: tuple[str, ...]
    """The parameters, in order of their numbers."""
    _known: WeakKeyDictionary[Connection, _Known] = field(init=False, default_factory=WeakKeyDictionary)

    @classmethod
    def of(cls, text: bytes) -> Self:
        """Numbers `%(name)s` and `%(name)b`; `%%` is a percent sign."""
        numbers: dict[bytes, int] = {}

        def number(found: re.Match[bytes]) -> bytes:
            name = found[1]
            return b"%" if name is None else b"$%d" % numbers.setdefault(name, len(numbers) + 1)

        return cls(_PLACEHOLDER.sub(number, text), tuple(name.decode() for name in numbers))

    async def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        """Runs it, and returns its rows; prepared from the first time on, where the connection prepares at all.

        The connection is nobody else's meanwhile.

        Raises:
            psycopg.Error: it failed, or the connection is lost.
        """
        if not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            await connection.execute("")  # the driver begins a transaction with a statement of its own
        bound = await self.bind(connection, parameters)
        bound.send()
        return await bound.rows()

    async def bind(self, connection: Connection, parameters: Mapping[str, Any]) -> Bound:
        """Gets it ready, so that sending it takes as few steps as possible. Raises `psycopg.Error`."""
        known = self._known.get(connection)
        if known is None:
            known = self._known[connection] = _Known(Adapter(connection))
        values, types, formats = known.adapter.dump([parameters[name] for name in self.names])
        name = known.names.get(types)
        if name is None and connection.prepare_threshold is not None and len(known.names) < KINDS_MAX:
            name = await self._prepare(connection, known, types)
        libpq = connection.pgconn
        if name is None:
            send = partial(libpq.send_query_params, self.text, values, param_types=types, param_formats=formats)
        else:
            send = partial(libpq.send_query_prepared, name, values, param_formats=formats)
        return Bound(connection, send, known.adapter)

    async def _prepare(self, connection: Connection, known: _Known, types: tuple[int, ...]) -> bytes:
        name = b"curation_%d" % next(_NUMBERS)
        connection.pgconn.send_prepare(name, self.text, param_types=types)
        await answer(connection)
        known.names[types] = name
        return name


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What a connection knows of a statement."""

    adapter: Adapter
    names: dict[Sequence[int], bytes] = field(init=False, default_factory=dict)
    """Names of what is prepared, by the types of its parameters: a small number is of another type than a large one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A statement with its parameters, of one connection, to be sent once."""

    connection: Connection
    send: Callable[[], None]
    """Needs no task, and waits for nothing. Raises `psycopg.Error`: the connection is lost."""
    _adapter: Adapter

    async def rows(self) -> Rows:
        """The rows of what was sent. Raises `psycopg.Error`: it failed, or the connection is lost."""
        [result] = await answer(self.connection)
        return self._adapter.rows(result)

    def send_ahead(self) -> None:
        """Sends it so that its rows come before its commit; like `send`."""
        libpq = self.connection.pgconn
        libpq.enter_pipeline_mode()
        self.send()
        libpq.send_flush_request()
        libpq.pipeline_sync()

    async def tell(self, take: Callable[[Rows], None]) -> None:
        """Gives `take` the rows of what was sent ahead, as soon as they are there: no task has to run for that.

        Returns once it is committed.

        Raises:
            psycopg.Error: it failed, or its commit did, or the connection is lost; then it may be committed.
        """
        await answer_before_commit(self.connection, lambda result: take(self._adapter.rows(result)))
