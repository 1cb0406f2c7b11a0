"""A way to a server that a test can cut, close and lead elsewhere."""

import asyncio
import contextlib
import threading


class Proxy:
    """Passes TCP on to a port, from a thread of its own: `with Proxy(port) as proxy`."""

    def __init__(self, target: int):
        self.target = target
        self.port = 0
        # Whether new connections are refused.
        self.is_closed = False
        # Is set while what comes is passed on.
        self._flows = asyncio.Event()
        self._flows.set()
        self._loop = asyncio.new_event_loop()
        self._ways: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._started = threading.Event()

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)

    def cut(self) -> None:
        """Break all connections."""
        self._loop.call_soon_threadsafe(lambda: [way.transport.abort() for way in self._ways])

    def stall(self) -> None:
        """Pass nothing on; all connections stay."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def go_on(self) -> None:
        """Pass on what has come, and what comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        async with await asyncio.start_server(self._pass_on, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._ended.wait()
            for way in self._ways:
                way.transport.abort()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_closed:
            writer.transport.abort()
            return
        there = await asyncio.open_connection("127.0.0.1", self.target)
        self._ways |= {writer, there[1]}
        with contextlib.suppress(OSError):
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._copy(reader, there[1])),
                    asyncio.ensure_future(self._copy(there[0], writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        self._ways -= {writer, there[1]}
        writer.close()
        there[1].close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
