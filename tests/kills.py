#!/usr/bin/python3
"""kills [--board N] [--postgres M] [--seed S] - kills under load, and what came of it; make kills runs it.

The board is killed with -9 N times, and started again; PostgreSQL M times, in turn the backend of the board's connection
(then the server restarts itself), the postmaster with all its processes, and the postmaster first, the others a moment later. Meanwhile
keepers write. Ends with 1 when a write that was acknowledged is lost, doubled or different.
"""

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from board import Board, Database, children
from keepers import ROWS, Keepers


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Kills:
    """A board and a PostgreSQL that are killed; times holds how long each took until it answered writes again."""

    def __init__(self, seed=None):
        self.random = random.Random(seed)
        self.server = Database()
        self.port = free_port()
        self.board = self._start()
        self.keepers = Keepers(self.board.address, seed=seed)
        self.times = {}

    def _start(self):
        return Board(http_listen=f"127.0.0.1:{self.port}", database_url=self.server.url,
                     limits_messages_per_second=0)

    def kill_board(self):
        self._load()
        self.board.kill()
        self.board = self._start()
        self._note("board", self.keepers.wait_anew())

    def kill_postgres(self, how):
        self._load()
        if how == "backend":
            backends = self.server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'breadboard'")
            for (pid,) in backends:
                os.kill(pid, signal.SIGKILL)
        else:
            postmaster = self.server.pid
            processes = children(postmaster)
            os.kill(postmaster, signal.SIGKILL)
            if how == "postmaster":  # a backend that is never idle does not notice, and goes on
                time.sleep(self.random.uniform(0, 0.2))
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._start_postgres()
        self._note(f"postgres: {how}", self.keepers.wait_anew())

    def _load(self):
        """A moment at random under load."""
        self.keepers.wait(self.random.randrange(10, 60))
        time.sleep(self.random.uniform(0, 0.05))

    def _start_postgres(self):
        """Waits for processes of the one that was killed to go."""
        for _ in range(100):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.server.start()
                return
            time.sleep(0.05)
        raise AssertionError("PostgreSQL does not start")

    def _note(self, what, seconds):
        self.times.setdefault(what, []).append(seconds)

    def finish(self):
        """Ends all; returns what check () found."""
        self.keepers.stop()
        found = self.keepers.check(self.server.sql(ROWS))
        assert self.board.stop() == 0, self.board.logged()
        self.server.destroy()
        return found

    def table(self):
        keepers = self.keepers
        lines = ["| killed | times | until writes were answered again: median, most (s) |", "| --- | --- | --- |"]
        for what, times in self.times.items():
            times = sorted(times)
            lines.append(f"| {what} | {len(times)} | {times[len(times) // 2]:.2f}, {times[-1]:.2f} |")
        lines.append("")
        lines.append(f"{keepers.acknowledged} writes acknowledged, {keepers.doubts} requests in doubt and sent again,"
                     f" {keepers.refusals} refused, {len(keepers.refused)} of them given up")
        return "\n".join(lines)


def run(board, postgres, seed=None):
    """Returns the Kills, ended, and what was found."""
    kills = Kills(seed)
    hows = ["backend", "all", "postmaster"]
    plan = ["board"] * board + [hows[count % 3] for count in range(postgres)]
    kills.random.shuffle(plan)
    try:
        for how in plan:
            kills.kill_board() if how == "board" else kills.kill_postgres(how)
    except BaseException:
        kills.keepers.faults.append(AssertionError("the campaign was broken off"))
        kills.board.kill()
        kills.server.destroy()
        raise
    return kills, kills.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--board", type=int, default=200)
    parser.add_argument("--postgres", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    kills, found = run(options.board, options.postgres, options.seed)
    print(kills.table())
    print(", ".join(f"{count} {what}" for what, count in found.items()))
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
