"""The section `drain` of `run`: how long bowout needs for what its child leaves."""

import contextlib
import statistics
import subprocess

import bench


@contextlib.contextmanager
def strangers(count):
    """So many processes that sleep, and that are below this process and not below bowout."""
    crowd = bench.start(["./child", "crowd", count], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if crowd.stdout.readline() != b"ready\n":
            raise bench.Failed(f"no room for {count} strangers")
        yield
    finally:
        # The crowd process kills its children by their PIDs, and then exits.
        crowd.stdin.close()
        crowd.stdout.close()
        crowd.wait()


def took(bowout, rounds, processes, threads, pid1=False):
    """ms from the child's end to bowout's, which has so many processes to end in between."""
    words = [*bowout, "./child", "end", "@PAGE", processes, threads]
    (row,) = bench.drive("end", rounds, [bench.as_pid1(words) if pid1 else words])
    return statistics.median(nanoseconds for (nanoseconds,) in row) / 1_000_000


def drain(table, programs, small):
    bowout, rounds = programs[0].words, 3 if small else 30
    crowds, processes, threads = ([0, 50], 4, 20) if small else ([0, 1000, 5000], 20, 300)
    times = []
    for crowd in crowds:
        with strangers(crowd):
            times.append(took(bowout, rounds, 1, 1))
        table.put(f"drain of 1 beside {crowd:,} strangers, ms", "bowout", times[-1])
    table.put("drain of 1: ms more beside the most strangers", "bowout", times[-1] - times[0])
    for name, pid1 in (("", False), (" as PID 1", True)):
        for count, each in ((1, 1), (processes, threads)):
            figure = f"drain of {count} with {each} threads{name}, ms"
            table.put(figure, "bowout", took(bowout, rounds, count, each, pid1))
    # Processes that bowout left became children of this process.
    table.put("drain: left", "bowout", bench.clean_up())
