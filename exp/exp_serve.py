"""The HTTP server: ``leapcast serve``."""

import gc
import math
import os
import resource
import signal
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType

from leapcast.data_provider.data_factory import user_table
from leapcast.exp.arguments import NO_DRAFT
from leapcast.forecaster import SpeculativeForecaster
from leapcast.models.errors import UserError, flagged
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.io.checkpoint import EMBEDDED
from leapcast.utils.parallel.ray import cluster

TOKEN = "LEAPCAST_TOKEN"
# kernels that oneDNN and its wrapper in torch keep, by default 1,024 of either: batches have many shapes
CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "128"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MISSING = "a server needs more libraries: pip install fastapi fastapi-offline uvicorn prometheus_client pydantic"


def serve(args: Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress are answered before the end.

    Raises:
        UserError: a library, the checkpoint or the port is not to be had.
    """
    for name, most in CACHES.items():
        os.environ.setdefault(name, most)
    try:
        import uvicorn  # noqa: F401

        from leapcast.serving.app import create_app
    except ImportError as error:
        raise UserError(f"{MISSING} ({error})") from error
    if args.max_workers is not None and (args.backend == "serial" or args.max_workers < args.workers):
        raise UserError("--max_workers is for --backend ray, and at least --workers: correct it, or leave it out")
    limits = settings(args, read_token(args.token_file))
    place = listen(args.host, args.port)  # before what takes seconds
    engine = load(args)
    with place, backend(args, engine, limits) as make:
        stopped = run(args, create_app(engine, limits, make), place)
    if stopped == signal.SIGINT:
        raise KeyboardInterrupt("every request that was begun is answered")
    print("stopped: every request that was begun is answered", flush=True)


@contextmanager
def backend(args: Namespace, engine, limits) -> Iterator[Callable]:
    """What makes the server of an application: this process, or replicas on a Ray cluster."""
    from leapcast.serving.app import Server

    if args.backend == "serial":
        yield Server
        return
    from leapcast.serving.replicas import replicas

    with cluster(args, engine.base.device) as (_, needs):
        make = partial(load, args, engine.sigma)
        with replicas(make, limits, needs, args.workers, args.max_workers) as front:
            yield front


def run(args: Namespace, app, place: socket.socket) -> int:
    """Serve the application until a signal, which is returned."""
    import uvicorn

    from leapcast.serving.connections import Connection

    class Patient(Connection):
        patience = args.request_timeout_s

    class Server(uvicorn.Server):
        """Drains before it stops, which another signal does at once."""

        stopped = 0  # by this signal

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for line in told(args, app.state.server.described(), place.getsockname()[1]):
                print(flagged(line), flush=True)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.stopped:
                super().handle_exit(sig, frame)
            self.stopped = self.stopped or sig

        async def on_tick(self, counter: int) -> bool:  # ten times a second
            batcher = app.state.server.batcher
            if self.stopped:
                batcher.drain()
                self.should_exit = self.should_exit or not batcher.admitted
            return await super().on_tick(counter)

    # a client that does not take its answer is left, when the server stops
    longest = math.ceil(args.request_timeout_s) + 1
    config = uvicorn.Config(
        app, http=Patient, ws="none", log_level="warning", access_log=False, timeout_graceful_shutdown=longest
    )
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a connection is a file
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    gc.freeze()  # models and libraries: collections while a large body is parsed took most of its time
    server = Server(config)
    server.run([place])
    return server.stopped


def load(args: Namespace, known: float | Calibration | None = None):
    """The engine of these arguments; ``known``: σ, where it was found already.

    Raises:
        UserError: a checkpoint or the table cannot be read, or does not fit.
    """
    import torch

    from leapcast.serving.engine import Engine

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.spec_adaptive == "online":
        raise UserError("--spec_adaptive online hangs on the clock: a server decides by stored, or give off")
    name = args.checkpoint or EMBEDDED
    base = SpeculativeForecaster.from_pretrained(
        name,
        None if args.draft == NO_DRAFT else args.draft,
        args.device,
        context=args.seq_len,
        sigma=args.spec_sigma,
        accept_mse_tol=args.spec_accept_mse_tol,
        k=args.spec_k,
        adaptive=args.spec_adaptive,
        nonnegative=args.nonnegative,
    )
    sigma, told = (known, "") if known else spread(args, base)
    return Engine(base, sigma, args.num_samples, str(name), told)


def spread(args: Namespace, base: SpeculativeForecaster) -> tuple[float | Calibration, str]:
    """σ of sample paths, and in words: as given, stored with the model, or calibrated on the table of the arguments."""
    if base.sigma != "calibrated":
        stored = isinstance(base.sigma, Calibration)
        return base.sigma, "calibrated when the model was made" if stored else str(base.sigma)
    if base.channels == "joint" and args.data_path is None:
        raise UserError(
            "sample paths of joint columns are calibrated on a table of such columns: give `data_path`, or `sigma` as "
            "a number"
        )
    table = user_table(args)
    print(f"sample paths are calibrated on {table.name}; --data_path or --spec_sigma chooses", flush=True)
    return base.spread(list(islice(table.histories(), base.batch_size)), 2), f"calibrated on {table.name}"


def read_token(file: str | None) -> str | None:
    """The token of the file, else of the environment; None where there is none.

    Raises:
        UserError: the file cannot be read, or the token is empty.
    """
    try:
        token = os.environ.get(TOKEN) if file is None else Path(file).read_text().strip()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--token_file {file} cannot be read: give a file with the token in it") from error
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise UserError(f"the token of {file or TOKEN} must be a word of ASCII letters, digits and signs: make another")
    return token


def settings(args: Namespace, token: str | None):
    from leapcast.serving.settings import Settings

    given = {name: value for name, value in vars(args).items() if name in Settings.__dataclass_fields__}
    # who listens at this machine only is called by its name: a page of another host could have its name point here
    hosts = (*LOOPBACK, "[::1]") if args.host in LOOPBACK and token is None else ()
    return Settings(**given, token=token, hosts=hosts)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: the port is in use, or there is no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind, protocol)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {port} ({error.strerror}): give another --port") from error
    return place


def told(args: Namespace, model: dict, port: int) -> list[str]:
    """What the operator reads at the start."""
    limits = model["limits"]
    draft = f"draft {model['draft']}" if model["draft"] else "no draft"
    lines = [
        f"{model['name']}: {model['target']}, {model['parameters']:,} parameters, {draft}, patch {model['patch']}, "
        f"context {model['context']}",
        f"limits of a request: {limits['series']:,} series, {limits['values']:,} values, horizon "
        f"{limits['horizon']:,}, {limits['num_samples']:,} paths, {limits['body_bytes'] / 2**20:g} MiB, "
        f"{args.request_timeout_s:g} s",
    ]
    if args.host not in LOOPBACK and not model["token"]:
        lines.append(f"WARNING: whoever reaches {args.host} may use this server: give `token_file`, or set {TOKEN}")
    host = f"[{args.host}]" if ":" in args.host else args.host
    need = "needs a token" if model["token"] else "needs no token"
    return [*lines, f"serving at http://{host}:{port} ({need}; /docs describes it); Ctrl-C or SIGTERM stops it"]
