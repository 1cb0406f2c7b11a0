"""One connection: a client's messages into its session, the session's ticks into messages."""

import asyncio

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from duplex.errors import ProtocolError
from duplex.events import Error
from duplex.serving.commands import Audio
from duplex.serving.dialect import Dialect
from duplex.serving.engine import STOPPED
from duplex.serving.http.auth import TokenBucket
from duplex.serving.limits import ServerLimits
from duplex.serving.native import messages as native
from duplex.serving.session import ClientSession

SHUTTING_DOWN = "the server is shutting down"


async def send(connection: ServerConnection, messages: list) -> None:
    """Send messages in order."""
    for message in messages:
        await connection.send(message)


async def refuse(connection: ServerConnection, dialect: Dialect, error: Error) -> None:
    """Tell why there is no session, and close."""
    codes = {
        "full": native.CloseCode.FULL,
        "stopped": native.CloseCode.GOING_AWAY,
        "model": native.CloseCode.FAILED,
        "idle": native.CloseCode.ABUSE,
        "gone": native.CloseCode.ENDED,
        "refused": native.CloseCode.ABUSE,
    }
    await send(connection, dialect.refused(error))
    await connection.close(codes[error.code], error.text[:100])


async def first_commands(
    connection: ServerConnection, dialect: Dialect, limits: ServerLimits
) -> list:
    """The commands of the first message that means something.

    Returns none, and has told why and closed the connection, where no such message came.
    """
    wait_s = limits.late_start_s if dialect.terms.may_be_idle else limits.first_message_s
    try:
        async with asyncio.timeout(wait_s):
            for _ in range(limits.max_bad_messages):
                try:
                    commands, replies = dialect.receive(await connection.recv())
                    await send(connection, replies)
                    if not commands and not replies:
                        text = "the first message asks for nothing; begin with a start or audio"
                        await refuse(connection, dialect, Error("refused", text))
                    if commands or not replies:
                        return commands
                except ProtocolError as error:
                    await send(connection, dialect.refused(Error("bad_message", str(error))))
    except TimeoutError:
        waited = f"nothing came within {wait_s:g} s"
        error = Error("idle", f"{waited}, neither session.start nor audio")
        await refuse(connection, dialect, error)
        return []
    await connection.close(native.CloseCode.ABUSE, "too many bad messages")
    return []


async def hear(
    connection: ServerConnection, dialect: Dialect, session: ClientSession, limits: ServerLimits
) -> bool:
    """Client messages into the session, until the connection closes.

    Returns whether it was lost rather than closed.
    """
    now = asyncio.get_running_loop().time
    may_send_bytes = TokenBucket(limits.bytes_per_s, limits.bytes_burst, now())
    may_send = TokenBucket(limits.messages_per_s, limits.messages_burst, now())
    may_err = TokenBucket(limits.bad_messages_per_s, limits.max_bad_messages - 1, now())
    is_abuse = False
    try:
        while not is_abuse:
            message = await connection.recv()
            is_too_fast = not may_send_bytes.take(len(message), now())
            is_too_fast |= not may_send.take(1, now())
            if is_too_fast and not dialect.terms.may_be_idle:
                session.close("too much was sent", "abuse")
                await connection.close(
                    native.CloseCode.ABUSE, "too much is sent in too short a time"
                )
                return False
            try:
                replies = _receive(message, dialect, session)
            except ProtocolError as error:
                is_abuse = not may_err.take(1, now())
                replies = dialect.refused(Error("bad_message", str(error)))
            await send(connection, replies)
            if is_too_fast:
                # Until then its connection is not read, and what it sends waits on its side.
                await asyncio.sleep(max(may_send_bytes.wait_s(), may_send.wait_s()))
        session.close("too many bad messages", "abuse")
        await connection.close(native.CloseCode.ABUSE, "too many bad messages")
        return False
    except ConnectionClosed:
        # A proxy that is restarted closes with 1001 or 1012: its client comes back.
        return connection.close_code != native.CloseCode.ENDED


def _receive(message: bytes | str, dialect: Dialect, session: ClientSession) -> list:
    """Give the session what a message asks for; return the replies. Raises ProtocolError."""
    commands, replies = dialect.receive(message)
    for command in commands:
        if not session.enqueue_command(command):
            what = "audio waits to be heard" if isinstance(command, Audio) else "is asked for"
            return dialect.refused(Error("too_much", f"too much {what}; this message is ignored"))
    return replies


async def speak(
    connection: ServerConnection, dialect: Dialect, session: ClientSession, answer: list
) -> None:
    """The session's ticks to the client, until the session ends; then close the connection."""
    code = native.CloseCode.ENDED
    reason = ""
    await send(connection, answer)
    _take_due(dialect, session)
    while (tick := await session.get()) is not None:
        audio, events = tick
        for event in events:
            if event.kind == "error" and event.code == "model":
                code = native.CloseCode.FAILED
            elif event.kind == "session.ended":
                reason = event.text
                if reason in (SHUTTING_DOWN, STOPPED):
                    code = native.CloseCode.GOING_AWAY
        messages = dialect.tick(audio, events)
        _take_due(dialect, session)
        await send(connection, messages)
    # The reason has room for 123 bytes.
    await connection.close(code, reason.encode()[:100].decode(errors="ignore"))


def _take_due(dialect: Dialect, session: ClientSession) -> None:
    """Give the session what a tick has brought about."""
    for command in dialect.take_due():
        session.enqueue_command(command)
