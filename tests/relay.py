"""A TCP relay between a client and a broker that counts, cuts, slows, stalls and refuses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field

__all__ = ["Connection", "Relay"]

UP, DOWN = 0, 1


@dataclass
class Connection:
    """One connection through the relay and the bytes it forwarded: up (to the broker) and down."""

    writers: list[asyncio.StreamWriter]
    passed: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def up_bytes(self) -> int:
        return self.passed[UP]

    @property
    def down_bytes(self) -> int:
        return self.passed[DOWN]


class Relay:
    """Listens on a loopback port of its own and forwards to `target_port`; every switch may be turned at any time.

    rate_bytes_s: limit a direction of a connection, None for none. delay_s: wait before each piece is passed on.
    stalled: pass nothing on, keep everything open. refusing: reset whoever connects.
    cut_up_after, cut_down_after: reset the connection that takes the total in that direction past this many bytes,
    exactly there, once. With `tls`, the relay speaks TLS to the client and plain TCP to the broker.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self.rate_bytes_s: float | None = None
        self.delay_s = 0.0
        self.stalled = False
        self.refusing = False
        self.refused = 0
        self.connections: list[Connection] = []
        self._limits: list[int | None] = [None, None]
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")
        self._thread.start()
        self._server = self._call(self._listen(tls))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def up_bytes(self) -> int:
        return sum(connection.up_bytes for connection in self.connections)

    @property
    def down_bytes(self) -> int:
        return sum(connection.down_bytes for connection in self.connections)

    def cut_up_after(self, count: int) -> None:
        self._limits[UP] = self.up_bytes + count

    def cut_down_after(self, count: int) -> None:
        self._limits[DOWN] = self.down_bytes + count

    def cut(self) -> None:
        """Resets every open connection now."""
        self._call(self._reset(self.connections))

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)

    async def _end(self) -> None:
        self._server.close()
        await self._reset(self.connections)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _reset(self, connections: list[Connection]) -> None:
        for connection in connections:
            for writer in connection.writers:
                _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.refused += 1
            _abort(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            self.refused += 1
            _abort(writer)
            return
        connection = Connection([writer, far_writer])
        self.connections.append(connection)
        for pump in (
            self._pump(UP, connection, reader, far_writer),
            self._pump(DOWN, connection, far_reader, writer),
        ):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, way: int, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(16384):
                await self._hold(len(piece))
                limit, total = self._limits[way], (self.up_bytes, self.down_bytes)[way]
                cutting = limit is not None and total + len(piece) >= limit
                if cutting:
                    piece = piece[: limit - total]
                    self._limits[way] = None
                connection.passed[way] += len(piece)
                writer.write(piece)
                await writer.drain()
                if cutting:
                    await asyncio.sleep(0.05)  # let what was let through arrive before the reset overtakes it
                    await self._reset([connection])
                    break  # what is still in the reader's buffer was not passed on
        writer.close()

    async def _hold(self, count: int) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.rate_bytes_s:
            await asyncio.sleep(count / self.rate_bytes_s)
        while self.stalled:
            await asyncio.sleep(0.01)


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
