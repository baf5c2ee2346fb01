"""Where the workers of a training meet: what TF_CONFIG says of them, and waiting until all of them are there."""

import contextlib
import dataclasses
import json
import os
import socket
import time

from absl import logging

from polyamp.errors import PolyampError

_EXAMPLE = '{"cluster":{"worker":["first-host:2222","second-host:2222"]},"task":{"type":"worker","index":0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a training, and which of them this process is.

    Attributes:
        addresses: "host:port" of each, the chief's first.
        index: This process' place among them.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        return self.index == 0


def read_cluster() -> Cluster:
    """The cluster that the environment variable TF_CONFIG describes.

    Raises:
        PolyampError: It is missing or malformed; says how.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise _bad(f"is not JSON ({error})") from error
    cluster, task = (config.get(name) if isinstance(config, dict) else None for name in ("cluster", "task"))
    if not cluster or not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _bad('needs "cluster" and "task"' if text else "is not set")
    jobs = {job: cluster.get(job, []) for job in ("chief", "worker")}
    if set(cluster) - set(jobs) or not all(isinstance(listed, list) for listed in jobs.values()) or len(jobs["chief"]) > 1:
        raise _bad('may list one "chief" and any number of "worker", nothing else')
    addresses = [*jobs["chief"], *jobs["worker"]]
    for address in addresses:
        if not _is_address(address) or addresses.count(address) > 1:
            raise _bad(f"needs another host:port for each worker, not {address!r}")
    job, index = task.get("type"), task.get("index")
    if job not in ("chief", "worker") or type(index) is not int or not 0 <= index < len(jobs[job]):
        raise _bad(f"has the task {job!r} {index!r}, which is none of its cluster")
    return Cluster(tuple(addresses), index + (len(jobs["chief"]) if job == "worker" else 0))


def _bad(problem: str) -> PolyampError:
    return PolyampError(f"--strategy=multi_worker: the environment variable TF_CONFIG {problem}; for example {_EXAMPLE}.")


def _is_address(address: object) -> bool:
    return isinstance(address, str) and bool(address.rpartition(":")[0]) and _port(address) is not None


def _port(address: str) -> int | None:
    port = address.rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() and 0 < int(port) < 65_536 else None


def meet(cluster: Cluster, seconds: float) -> None:
    """Returns in all workers once all of them have called this, and leaves their ports free again.

    TensorFlow itself waits for a missing worker for an hour, and cannot be interrupted meanwhile.

    Raises:
        PolyampError: After that many seconds some are missing; or the chief's port is taken.
    """
    deadline = time.monotonic() + seconds
    if cluster.is_chief:
        _gather(cluster, deadline)
    else:
        _report(cluster, deadline)


def _gather(cluster: Cluster, deadline: float) -> None:
    """The chief's part: hears the index of every other worker, then lets all of them go on."""
    missing = set(range(1, len(cluster.addresses)))
    logging.info("Waiting for %d other workers.", len(missing))
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", _port(cluster.addresses[0]) or 0)))
        except OSError as error:
            raise PolyampError(f"{cluster.addresses[0]}: the chief cannot listen at this port ({error.strerror}).") from error
        heard: dict[int, socket.socket] = {}
        while missing - set(heard):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection = stack.enter_context(server.accept()[0])
            except TimeoutError:
                raise _nobody(cluster, missing - set(heard)) from None
            connection.settimeout(5.0)  # A stranger that connects and says nothing.
            with contextlib.suppress(OSError, ValueError):
                heard[int(connection.recv(16))] = connection
        for connection in heard.values():
            with contextlib.suppress(OSError):
                connection.sendall(b"go")


def _report(cluster: Cluster, deadline: float) -> None:
    """The others' part: tells the chief, as soon as it listens, who is there, and waits for its word."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while True:
        with contextlib.suppress(OSError):
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0) as connection:
                connection.sendall(str(cluster.index).encode())
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                if connection.recv(2) == b"go":
                    return
        if time.monotonic() >= deadline:
            raise _nobody(cluster, {0})
        time.sleep(0.2)


def _nobody(cluster: Cluster, missing: set[int]) -> PolyampError:
    listed = ", ".join(cluster.addresses[index] for index in sorted(missing))
    return PolyampError(f"--strategy=multi_worker: not all workers came; missing: {listed}. Start all of them.")
