"""Runs a command and measures it: lines of output with their time, processor time, peak memory, disturbance."""
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass


class CommandFailed(Exception):
    pass


@dataclass
class Finished:
    """What a command did. Times are seconds from its start."""

    lines: list  # (time, processor seconds so far, text) of each piece of output
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    steal: float  # share of the machine's time that its host gave to others
    others: float  # share of the machine's time that other processes took


def processor_ticks():
    """Returns all, busy and stolen ticks of the machine so far."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    idle, waiting, stolen = ticks[3], ticks[4], ticks[7]
    return sum(ticks), sum(ticks) - idle - waiting - stolen, stolen


def cpu_seconds_of(pid):
    """Returns the processor time of a running process, all threads."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(command, environment, stream="stdout", by_line=True):
    """Runs `command` and reads `stream` ("stdout" or "stderr") as it comes, by line or in pieces."""
    ticks = processor_ticks()
    with tempfile.TemporaryFile() as rest:
        pipes = {"stdout": rest, "stderr": rest, stream: subprocess.PIPE}
        started = time.monotonic()
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, **pipes)
        lines = []
        reader = threading.Thread(
            target=read, args=(getattr(process, stream), process.pid, started, lines, by_line), daemon=True)
        reader.start()
        # wait4 and not process.wait: only it tells what this one process has used.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
        if process.returncode != 0:
            rest.seek(0)
            said = rest.read().decode(errors="replace") + "".join(text for _, _, text in lines)
            raise CommandFailed(f"`{' '.join(map(str, command))}` ended with {process.returncode}:\n{said[-2000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    total, busy, stolen = (after - before for before, after in zip(ticks, processor_ticks()))
    others = max(0.0, busy - cpu * os.sysconf("SC_CLK_TCK")) / max(total, 1)
    return Finished(lines, wall, cpu, usage.ru_maxrss * 1024, stolen / max(total, 1), others)


def read(pipe, pid, started, lines, by_line):
    with pipe:
        while piece := pipe.readline() if by_line else pipe.read1(65536):
            now = time.monotonic() - started
            try:
                cpu = cpu_seconds_of(pid)
            except OSError:
                cpu = None  # it has ended
            lines.append((now, cpu, piece.decode(errors="replace")))
