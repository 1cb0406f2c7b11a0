"""Every exception that leaves the module which raises it. Each carries one sentence for people.

The sentence says what went wrong and, where it helps, what to do about it. The command line prints
it after `duplex: ` and ends; it needs to know `DuplexError` alone.

    DuplexError
    ├── UsageError           the command line asks for something that cannot be
    ├── ClientError          a file, a device or a server that the client wants is not to be had
    ├── EchoUnavailable      the library that cancels the echo is missing
    ├── WeightsError         base weights cannot be fetched or stored
    ├── BackboneError        a file holds no language model of the kind that is wanted
    ├── VoiceError           there is no such voice, or no such speaking rate
    ├── ServerError          the server cannot serve
    ├── SessionError         the engine opens no session
    │   ├── EngineFull           every place is taken, or the machine is too busy
    │   └── EngineStopped        it takes no sessions any more
    ├── ProtocolError        a message outside the table of a dialect
    └── BenchError           the bench is asked for something that it cannot measure
        └── SceneError           a folder of scenes cannot be used
"""


class DuplexError(Exception):
    """What all exceptions of this project are."""


class UsageError(DuplexError):
    """The command line asks for something that cannot be."""


class ClientError(DuplexError):
    """Something that the client wants is not to be had: a file, a device, a server."""


class EchoUnavailable(DuplexError):
    """The library that cancels the echo is not installed, or not made for this system."""


class WeightsError(DuplexError):
    """Base weights cannot be fetched or stored."""


class MindError(DuplexError):
    """A large mind cannot be had, or cannot go on."""


class BackboneError(DuplexError):
    """A file holds no language model of the kind that is wanted."""


class VoiceError(DuplexError, ValueError):
    """There is no such voice, or no such speaking rate. A ValueError: the session goes on."""


class ServerError(DuplexError):
    """The server cannot serve: its address, its certificate or its access rules are at fault."""


class SessionError(DuplexError):
    """The engine opens no session."""


class EngineFull(SessionError):
    """Every place is taken, or too many ticks are late already."""


class EngineStopped(SessionError):
    """The engine takes no sessions any more."""


class ProtocolError(DuplexError, ValueError):
    """A message outside the table of a dialect; the sentence is for its sender."""


class BenchError(DuplexError):
    """The bench is asked for something that it cannot measure."""


class SceneError(BenchError):
    """A folder of scenes cannot be used."""
