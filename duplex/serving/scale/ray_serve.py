"""The server as a deployment of Ray Serve; needs the extra `ray`.

    serve run duplex.serving.scale.ray_serve:app options="--compute cuda --max-sessions 8"

options: those of `duplex serve`; --max-sessions is needed. Further words, with their defaults:
gpus=1 of each replica (0.5: two share one), cpus=2, min_replicas=1, max_replicas=4.

What sockets that live for an hour need, and what is set for it here:

- Each socket is one ongoing request. A replica takes two more than it has places, so that it says
  itself that it is full; Ray would let the client wait without a word.
- Ray kills a replica 20 s after it is told to go; here as late as a session may last.
- Replicas are added when seven of ten places are taken, and go after ten quiet minutes.
- A replica is ill when the model's thread stands still, not when it is busy.

The key is --api-key among the options, or $DUPLEX_API_KEY of who deploys; without one everybody
whom Ray's proxy reaches may come in.

A socket that was cut reaches any replica when it comes back, so its session is lost there; with a
director (see SCALING.md) it is resumed. Do not set RAY_SERVE_ENABLE_HA_PROXY: HAProxy is reloaded
at each change of replicas, and cuts sockets two minutes later.
"""

import asyncio
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields

from ray import serve

from duplex import cli
from duplex.agent_interface import AgentInterface
from duplex.errors import UsageError
from duplex.serving.engine import Engine
from duplex.serving.scale.asgi import application
from duplex.serving.server import Serving


@dataclass(frozen=True)
class RayConfig:
    """How many replicas, and what each takes of a machine."""

    gpus: float = 1.0
    cpus: float = 2.0
    min_replicas: int = 1
    max_replicas: int = 4
    # Of the places, that are taken on average when replicas are added or go.
    taken_share: float = 0.7
    # Seconds for which that must be so.
    upscale_s: float = 10.0
    downscale_s: float = 600.0


@serve.ingress()
class DuplexServer:
    """One replica: an agent, an engine and its server, without sockets of its own."""

    def __init__(self, options: list[str], load: Callable[..., AgentInterface] | None):
        config, load = cli.server_config(options, load)
        self.engine = Engine(
            load(config.max_sessions),
            config.max_sessions,
            limits=config.engine,
            recorder=config.recorder,
        )
        self.engine.start()
        self.serving = Serving(self.engine, [], config.access, config.server)

    def __serve_build_asgi_app__(self):
        """What Ray calls for the application."""
        return application(self.serving)

    def check_health(self) -> None:
        """Raises RuntimeError where the replica is to be replaced."""
        if reason := self.engine.ailing():
            raise RuntimeError(reason)

    async def __del__(self) -> None:
        # Ray has waited for all sockets by now, or for as long as a session may last.
        await self.serving.close()
        await asyncio.to_thread(self.engine.stop)


def deployment(
    options: list[str],
    config: RayConfig | None = None,
    load: Callable[..., AgentInterface] | None = None,
) -> serve.Application:
    """The application, for serve.run.

    options: of `duplex serve`. load: as cli.main takes it. Raises UsageError, ServerError.
    """
    config = config or RayConfig()
    server, _ = cli.server_config(options, load)
    places = server.max_sessions
    longest_s = server.engine.max_session_s
    if places is None:
        raise UsageError("Ray must know how many sessions a replica holds: give --max-sessions")
    if not longest_s:
        raise UsageError("Ray waits for sessions, which must end some time: give --longest")
    if server.access.api_key:
        # The key may come from this process's environment, which replicas elsewhere do not have.
        options = [*options, "--api-key", server.access.api_key]
    made = serve.deployment(
        DuplexServer,
        name="duplex",
        ray_actor_options={"num_gpus": config.gpus, "num_cpus": config.cpus},
        max_ongoing_requests=places + 2,
        graceful_shutdown_timeout_s=longest_s + server.server.grace_s,
        health_check_period_s=5,
        health_check_timeout_s=30,
        autoscaling_config={
            "min_replicas": config.min_replicas,
            "max_replicas": config.max_replicas,
            "target_ongoing_requests": config.taken_share * places,
            "upscale_delay_s": config.upscale_s,
            "downscale_delay_s": config.downscale_s,
        },
    )
    return made.bind(options, load)


def app(words: dict[str, str]) -> serve.Application:
    """What `serve run` calls with its words."""
    words = dict(words)
    options = shlex.split(words.pop("options", ""))
    kinds = {field.name: field.type for field in fields(RayConfig)}
    unknown = [name for name in words if name not in kinds]
    if unknown:
        raise UsageError(f"there is no word {unknown[0]!r}; there are options, {', '.join(kinds)}")
    config = RayConfig(**{name: kinds[name](value) for name, value in words.items()})
    return deployment(options, config)
