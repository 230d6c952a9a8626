"""The same application over replicas of the model, which Ray Serve runs, restarts and scales."""

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from leapcast.models.errors import Interrupted, UserError
from leapcast.serving.app import Lost, Server
from leapcast.serving.engine import Engine
from leapcast.serving.metrics import Relay
from leapcast.serving.settings import Settings

NAME = "leapcast"
BUSY = 32  # requests in progress for which another replica is started, where there may be more
AGAIN, TRIES = 0.1, 4  # seconds after which a request is tried again whose replica was lost; how often it is tried


class Replica:
    """Batches and decodes requests, as a server of one process does.

    Args:
        make: makes the engine. Its files have the same paths on every machine.
        folder: in which these paths hold.
        settings: limits.
    """

    def __init__(self, make: Callable[[], Engine], folder: str, settings: Settings):
        os.chdir(folder)
        self.relay = Relay()
        self.server = Server(make(), settings, self.relay)

    async def forecast(self, body: bytes) -> tuple[bytes | str, list]:
        """The answer's body, or as text what is wrong with the request; and what is to be noted in the metrics."""
        if self.server.batcher.task is None:
            self.server.batcher.start()
        try:
            return await self.server.respond(body), self.relay.take()
        except UserError as error:
            return str(error), self.relay.take()


class Front(Server):
    """Takes requests, and passes them on to replicas; those of a replica that was lost are tried again."""

    def __init__(self, engine: Engine, settings: Settings, handle):
        super().__init__(engine, settings)
        self.handle = handle

    async def respond(self, body: bytes) -> bytes:
        from ray.exceptions import RayError, RayTaskError

        for _ in range(TRIES):  # each within the request's time
            response = self.handle.forecast.remote(body)
            try:
                answer, noted = await response
            except RayTaskError:  # an error of the code
                raise
            except RayError:
                await asyncio.sleep(AGAIN)
                continue
            except asyncio.CancelledError:
                response.cancel()
                raise
            for name, about in noted:
                getattr(self.metrics, name)(*about)
            if isinstance(answer, str):
                raise UserError(answer)
            return answer
        raise Lost("its replica was lost again and again: perhaps by this request; send another")


@contextmanager
def replicas(
    make: Callable[[], Engine], settings: Settings, needs: dict, least: int, most: int | None
) -> Iterator[Callable[[Engine, Settings], Front]]:
    """Run replicas on the Ray cluster that this process is connected to; yields what makes their front.

    Args:
        make, settings: see :class:`Replica`.
        needs: resources of one, as options of a Ray actor.
        least, most: replicas; ``most`` None: always ``least``.

    Raises:
        Interrupted: the replicas do not start.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise Interrupted("replicas need Ray Serve: pip install 'ray[serve]'") from error
    scaled: dict = {"num_replicas": least}
    if most is not None:
        scaled = {"autoscaling_config": {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": BUSY}}
    serve.start(proxy_location="Disabled")  # requests come from the front
    name = f"{NAME}-{uuid.uuid4().hex[:8]}"  # there may be several fronts on a cluster, each with its replicas
    try:
        deployed: Any = serve.deployment(
            Replica, name=NAME, ray_actor_options=needs, max_ongoing_requests=settings.max_queue, **scaled
        )
        bound = deployed.bind(make, os.getcwd(), replace(settings, token=None))
        try:
            handle = serve.run(bound, name=name, route_prefix=None)
        except RuntimeError as error:
            raise Interrupted(f"the replicas do not start: {str(error).strip().splitlines()[-1]}") from error
        yield partial(Front, handle=handle)
    finally:
        serve.delete(name)
