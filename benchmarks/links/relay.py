"""A TCP relay for each device, with a token bucket each way: slow links where network namespaces are not allowed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.links.bucket import Bucket

__all__ = ["relays"]

_PIECE_BYTES = 1448  # about what one packet carries
_BURST_BYTES = 4096


@contextmanager
def relays(count: int, target_port: int, up_bits_s: float, down_bits_s: float) -> Iterator[list[int]]:
    """Yields a loopback port for each device; all connections through one port share its two rates."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="relays")
    thread.start()
    made = [_Relay(target_port, up_bits_s, down_bits_s) for _ in range(count)]
    try:
        yield [asyncio.run_coroutine_threadsafe(relay.listen(), loop).result(10) for relay in made]
    finally:
        asyncio.run_coroutine_threadsafe(_end(made), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Relay:
    def __init__(self, target_port: int, up_bits_s: float, down_bits_s: float) -> None:
        self.target_port = target_port
        self.up = Bucket(up_bits_s / 8, _BURST_BYTES)
        self.down = Bucket(down_bits_s / 8, _BURST_BYTES)
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def listen(self) -> int:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_PIECE_BYTES)
        return int(self.server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=_PIECE_BYTES)
        except OSError:
            writer.close()
            return
        for pump in (_pump(self.up, reader, far_writer), _pump(self.down, far_reader, writer)):
            task = asyncio.create_task(pump)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


async def _pump(bucket: Bucket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                await asyncio.sleep(bucket.wait_s(len(piece), time.monotonic()))
                writer.write(piece)
                await writer.drain()
    finally:
        writer.close()


async def _end(made: list[_Relay]) -> None:
    tasks = [task for relay in made for task in relay.tasks]
    for relay in made:
        if relay.server:
            relay.server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
