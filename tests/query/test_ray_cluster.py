"""A search that attaches to a running Ray cluster by its address."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from asked import Convolutions

from lightning_nas.query import Evaluator, RayExecutor, RegularizedEvolution

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(HERE),
    "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0",  # otherwise workers starve beside other tests
    "RAY_AUTH_MODE": "token",  # the cluster and who attaches to it share a secret
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def searched(address: str | None) -> list[str]:
    """Genotypes of a search, in this process or on a cluster."""
    searcher = RegularizedEvolution("nasbench201", population=4, sample=2, seed=1)
    executor = None if address is None else partial(RayExecutor, address=address)
    evaluator = Evaluator(Convolutions(searcher.space), in_flight=2, executor=executor)
    results = [result for _ in range(12) if (result := evaluator.step(searcher)) is not None]
    evaluator.close()
    return [f"{searcher.space.format(result.trial.genotype)} {result.score} {result.error}" for result in results]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a cluster of its own, which ends with the test."""
    port = free_port()
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(  # type: ignore[call-overload]
        [*command, "--include-dashboard=false"], env=ENVIRONMENT, start_new_session=True, **silent
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()


@pytest.mark.ddp
def test_a_search_on_a_cluster_is_the_search_in_this_process(cluster: str) -> None:
    script = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        f"import test_ray_cluster as t; print(*t.searched({cluster!r}), sep='\\n')",
    ]
    done = subprocess.run(script, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == searched(None)
