"""A pipecat bot around one service, and the frames that passed it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def pipecat_bot(service) -> AsyncIterator[tuple]:
    """Runs while the block does. Gives (put, found): `await put(frame)`, and frames of a kind."""
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.frame_processor import FrameProcessor
    from pipecat.workers.runner import WorkerRunner

    frames = []

    class Sink(FrameProcessor):
        """Keeps the frames that pass."""

        async def process_frame(self, frame, direction):
            await super().process_frame(frame, direction)
            frames.append(frame)
            await self.push_frame(frame, direction)

    def found(kind) -> list:
        return [frame for frame in frames if isinstance(frame, kind)]

    worker = PipelineWorker(Pipeline([Sink(), service, Sink()]))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        yield worker.queue_frame, found
    finally:
        await worker.cancel()
        await running
