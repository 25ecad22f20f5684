"""Workers in other processes: they get the oracle once, and end with the search or when nobody wants their trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asked import Convolutions

from lightning_nas.query import Evaluator, Processes, RandomSearch, RayExecutor, Result, Trial
from lightning_nas.query.answers import answer, this_process
from lightning_nas.spaces import get_space

SPACE = get_space("nasbench201")
HERE = Path(__file__).parent
EXECUTORS = pytest.mark.parametrize("make", [partial(Processes, 2), partial(RayExecutor, 2)], ids=["processes", "ray"])


class Slow(Convolutions):
    """Notes its process, and from the third trial on hangs."""

    def __call__(self, trial: Trial) -> Result:
        result = super().__call__(trial)
        if trial.number >= 2:
            with (HERE if self.log is None else self.log).with_suffix(".pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(1000)
        return result


class Heavy(Convolutions):
    """Notes each time that it is unpickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with (HERE if self.log is None else self.log).with_suffix(".loads").open("a") as file:
            file.write(f"{os.getpid()}\n")


def lines(path: Path, count: int) -> list[int]:
    """The numbers of a file, once there are as many."""
    deadline = time.monotonic() + 200
    while not (path.exists() and len(path.read_text().splitlines()) >= count):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [int(line) for line in path.read_text().splitlines()]


def gone(pids: list[int], seconds: float = 30) -> bool:
    """Whether the processes end in time."""
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.ddp
@EXECUTORS
def test_the_oracle_is_sent_once_and_what_runs_at_the_end_is_ended(
    make: Callable[[], Executor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    heavy = Evaluator(Heavy(SPACE, tmp_path / "heavy"), in_flight=3, executor=make)
    searcher = RandomSearch(SPACE)
    for _ in range(6):
        result = heavy.step(searcher, limit=6)
        assert result is not None
        assert result.ok
    heavy.close()
    asked = lines(tmp_path / "heavy", 6)
    assert sorted(asked) == list(range(6))  # trials 6 and 7 are asked for, and not evaluated
    assert searcher.asked == 8
    loads = lines(tmp_path / "heavy.loads", 1)
    assert len(loads) == len(set(loads)) <= 3  # once a process

    slow = Evaluator(Slow(SPACE, tmp_path / "slow"), in_flight=4, executor=make)
    searcher = RandomSearch(SPACE)
    assert [slow.step(searcher) is None for _ in range(2)] == [False, False]
    pids = lines(tmp_path / "slow.pids", 2)
    slow.close()
    assert gone(pids)


@pytest.mark.ddp
def test_workers_end_with_a_search_that_is_killed(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from functools import partial\nfrom pathlib import Path\nfrom test_workers import SPACE, Slow\n"
        "from lightning_nas.query import Evaluator, Processes, RandomSearch\n"
        "if __name__ == '__main__':\n"
        f"    oracle = Slow(SPACE, Path({str(tmp_path / 'slow')!r}))\n"
        "    evaluator = Evaluator(oracle, in_flight=4, executor=partial(Processes, 2))\n"
        "    searcher = RandomSearch(SPACE)\n"
        "    while True: evaluator.step(searcher)\n"
    )
    path = tmp_path / "search.py"
    path.write_text(script)
    process = subprocess.Popen([sys.executable, str(path)], env=os.environ | {"PYTHONPATH": str(HERE)})
    pids = lines(tmp_path / "slow.pids", 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(pids)


def test_a_timeout_needs_processes() -> None:
    with pytest.raises(ValueError, match=r"a thread cannot be ended; give an executor with processes \(Processes, Ray"):
        Evaluator(Convolutions(SPACE), executor=partial(ThreadPoolExecutor, 2), timeout=1)
    trial = Trial(0, SPACE.sample(RandomSearch(SPACE).rng))
    assert "the process of the search" in str(answer(Convolutions(SPACE), trial, 1.0, this_process()).error)


def test_an_oracle_that_does_not_pickle_is_an_error_at_once() -> None:
    class Local(Convolutions):
        pass

    with pytest.raises(TypeError, match="Local cannot be sent to other processes"):
        Evaluator(Local(SPACE), executor=partial(Processes, 2))
