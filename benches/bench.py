"""What `run` and `budget` share: the programs that are compared, how they are called, and what is counted of one start.

The figures here are counts. They hardly depend on how busy the machine is, but they do depend on its kernel and its C library:

- Instructions are callgrind's, of the wrapper's own process, in user space. Valgrind shows the program a processor of its own (with AVX2 where the
  machine has it), so that the C library's choice of string functions does not move with the processor. They do move with the environment (the
  C library compares each variable with each of its tunables) and with the length of the words, which are logged: the environment is
  ENVIRONMENT and nothing else, and the programs are `./bowout` and `./child`, everywhere in this directory.
- Page faults are those of the wrapper and its child, from start to end, less those of the bare child. They move by one or two with address
  randomisation; the median of many starts is taken. How many pages one fault maps is the file system's and the kernel's matter: `budget` prints
  those of the floor beside them.
- System calls are strace's, of the wrapper's own process, without the execve that starts it; those of its child up to its execve are apart.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
# The folder in which build() puts the programs, and in which they run.
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")).resolve() / "benches"
BARE = ["./child", "exit"]
# The value of PR_SET_CHILD_SUBREAPER in <sys/prctl.h>.
SUBREAPER = 36

# A typical call in a container: none of them logs a line.
FOUR_OPTIONS = "--grace 25s --stop-signal QUIT --remap-exit 143:0 --log-format json".split()
TEN_OPTIONS = (
    "--grace 10s --stop-signal TERM --stop-on TERM,INT --on-repeat kill --max-runtime 1h --kill-mode mixed "
    "--remap HUP:USR1 --remap-exit 143:0 --exit-status auto --log-format text"
).split()
OPTIONS = {"no option": [], "four options": FOUR_OPTIONS, "ten options": TEN_OPTIONS}
# Every signal that can be caught, but for CHLD and those that the processor sends.
SIXTY = [str(n) for n in range(1, 65) if n not in (9, 17, 19, 11)]
EVERY_OPTION = (
    "--grace 10s --grace-max 20s --stop-signal TERM --stop-on TERM,INT --on-repeat kill --pre-stop true --stop-delay 0s --max-runtime 1h "
    "--kill-mode mixed --wait-tree --remap HUP:USR1 --parent-death-signal TERM --subreaper --remap-exit 143:0 --exit-status auto --notify auto "
    "--report /tmp/bowout-bench.report --termination-log=/tmp/bowout-bench.message -v -q --log-format text --warn-on-reap"
).split()


class Failed(Exception):
    """Something could not be measured; says what, and why."""


class Wrapper(NamedTuple):
    """A program that runs another: its words up to the command."""

    name: str
    words: list
    # The same, with the options to end all descendants of the command, as far as it can; '@GRACE' is the grace period.
    tree: list
    # It reaps orphans as PID 1, and forwards every signal; timeout does neither.
    init: bool = True


def say(text):
    print(text, file=sys.stderr, flush=True)


def must(words, **how):
    if subprocess.run(words, check=False, **how).returncode:
        sys.exit(f"{words[0]} {words[1]} failed")


def build(bowout=None):
    """Brings the release binary and the C programs of this directory together in BUILT, the working directory of all that is run."""
    if bowout is None:
        must(["cargo", "build", "--release", "--locked", "--quiet"], cwd=HERE.parent)
        bowout = BUILT.parent / "release" / "bowout"
    BUILT.mkdir(parents=True, exist_ok=True)
    shutil.copy(bowout, BUILT / "bowout")
    for name, flags in (("floor", ["-static"]), ("child", ["-static"]), ("drive", [])):
        must(["cc", "-O2", "-Wall", "-Wextra", *flags, "-o", BUILT / name, HERE / f"{name}.c"])
    # Pages of a file that are not yet on the disk are dirty, and count as Private_Dirty of each process that maps them.
    for name in ("bowout", "floor"):
        with open(BUILT / name, "rb") as file:
            os.fsync(file.fileno())


def wrappers():
    """bowout, the floor, and each peer that is installed."""
    found = [
        Wrapper("bowout", ["./bowout", "--"], ["./bowout", "-g", "--grace", "@GRACE", "--"]),
        Wrapper("floor", ["./floor", "--"], ["./floor", "--"]),
    ]
    # -s: reap as a process that is not PID 1, too, as bowout does; without it tini spends its time on a warning. -g, and dumb-init's default:
    # signal the whole process group. timeout -k: SIGKILL after the grace period.
    for name, words, tree in (
        ("tini-static", ["-s", "--"], ["-s", "-g", "--"]),
        ("tini", ["-s", "--"], ["-s", "-g", "--"]),
        ("dumb-init", ["--"], ["--"]),
        ("catatonit", ["--"], ["-g", "--"]),
        ("timeout", ["3600"], ["-k", "@GRACE", "3600"]),
    ):
        path = shutil.which(name)
        if path:
            found.append(Wrapper(name, [path, *words], [path, *tree], init=name != "timeout"))
        else:
            say(f"{name} is not installed: left out")
    return found


def start(words, **how):
    """A program in a session of its own, without a terminal and with a small, fixed environment."""
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | how
    return subprocess.Popen([str(word) for word in words], env=ENVIRONMENT, cwd=BUILT, start_new_session=True, **how)


def output(words, **how):
    """What a program prints on stdout; it has to exit with 0."""
    process = start(words, stdout=subprocess.PIPE, **how)
    text = process.communicate()[0].decode()
    if process.returncode:
        raise Failed(f"{' '.join(map(str, words[:3]))} ...: status {process.returncode}")
    return text


def drive(mode, rounds, commands):
    """drive.c's lines: for each command a list of one tuple for each round."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as dir:
        words = ["./drive", mode, rounds, dir]
        for command in commands:
            words += [";;", *command]
        rows = [[] for _ in commands]
        for line in output(words, stderr=None).splitlines():
            index, *values = map(int, line.split())
            rows[index].append(tuple(values))
    return rows


# ---- one start ----


def instructions(words, env=ENVIRONMENT):
    """User instructions of the wrapper's process, start to end."""
    run = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *map(str, words)]
    said = subprocess.run(run, env=env, cwd=BUILT, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
    # A child that executes another program after the fork prints no line.
    found = re.search(r"refs:\s+([\d,]+)", said.stderr)
    if said.returncode or not found:
        raise Failed(f"valgrind: status {said.returncode}\n{said.stderr}")
    return int(found[1].replace(",", ""))


def system_calls(words, times=5):
    """(the wrapper's own, its child's up to execve, the lines of the last trace)."""
    own, child = [], []
    with tempfile.NamedTemporaryFile("r") as trace:
        for _ in range(times):
            if start(["strace", "-f", "-qq", "-e", "signal=none", "-o", trace.name, *words]).wait():
                raise Failed("strace failed")
            lines = Path(trace.name).read_text().splitlines()
            lines = [line for line in lines if "resumed>" not in line and "+++" not in line]
            # The first line is the execve that starts the wrapper. The calls of its child from the child's own execve on are the command's.
            pid = lines[0].split()[0]
            own.append(sum(line.split()[0] == pid for line in lines) - 1)
            others = [line for line in lines if line.split()[0] != pid]
            until = next((n for n, line in enumerate(others) if "execve(" in line), -1)
            child.append(until + 1)
    return statistics.median_low(own), statistics.median_low(child), lines


def page_faults(commands, rounds):
    """Of each command: (with its child, less the bare child's; its own)."""
    rows = drive("faults", rounds, [BARE, *(command + BARE for command in commands)])
    both = [statistics.median(own + child for own, child in row) for row in rows]
    return [(both[n] - both[0], statistics.median(own for own, _ in rows[n])) for n in range(1, len(rows))]


# ---- one that waits ----


def proc(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()


def fields(pid, name):
    """`Name: number` lines of a file of /proc."""
    return {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+)", proc(pid, name), re.M)}


def state(pid):
    return proc(pid, "stat").rpartition(")")[2].split()[0]


def asleep(pid):
    """Waits until it sleeps, twice in a row; bounded, for a program that never does is a finding of its own."""
    seen = 0
    for _ in range(1000):
        seen = seen + 1 if state(pid) == "S" else 0
        if seen == 2:
            return
        time.sleep(0.01)
    raise Failed(f"{pid} does not come to rest")


def as_pid1(words):
    """The words that run a program as PID 1 of a namespace of its own, where all ends when it does."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    if os.geteuid():
        unshare += ["--user", "--map-root-user"]
    return [shutil.which("unshare") or "unshare", *unshare[1:], "--", *words]


class Waiting:
    """A wrapper whose child has said that it waits."""

    def __init__(self, words):
        self.process = start([*words, "./child", "stream", 0, 0], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        if self.process.stdout.readline() != b"ready\n":
            raise Failed(f"{words[0]}: the child is not ready")
        asleep(self.pid)

    def memory(self):
        rollup = fields(self.pid, "smaps_rollup")
        return rollup["Private_Dirty"], rollup["Rss"], rollup["Pss"]

    def threads(self):
        return fields(self.pid, "status")["Threads"]

    def switches(self):
        status = fields(self.pid, "status")
        return status["voluntary_ctxt_switches"] + status["nonvoluntary_ctxt_switches"]

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def idle_calls(waiting, seconds):
    """System calls of each while `seconds` pass. The one that each waits in may be seen to go on waiting; it is none."""
    with tempfile.TemporaryDirectory() as dir:
        tracers = []
        for n, one in enumerate(waiting):
            tracer = start(["strace", "-o", f"{dir}/{n}", "-p", one.pid], stderr=subprocess.PIPE)
            if b"attached" not in tracer.stderr.readline():
                raise Failed("strace cannot attach")
            tracers.append(tracer)
        time.sleep(seconds)
        counts = []
        for n, tracer in enumerate(tracers):
            tracer.send_signal(signal.SIGINT)
            tracer.stderr.close()
            tracer.wait()
            lines = Path(f"{dir}/{n}").read_text().splitlines()
            counts.append(sum(" = " in line and "ERESTART" not in line for line in lines))
        return counts


def children(pid):
    return [int(word) for word in proc(pid, f"task/{pid}/children").split()]


def adopt():
    """Orphans come here from now on, so that what a wrapper leaves behind can be counted, and ended."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def clean_up():
    """Ends and reaps all that is below this process, started by any process; returns how many lived. Only after adopt()."""
    alive = 0
    while left := children(os.getpid()):
        for pid in left:
            if state(pid) != "Z":
                alive += 1
                os.kill(pid, signal.SIGKILL)
        # Their descendants become children of this process when they end, and are ended in the next turn.
        for pid in left:
            os.waitpid(pid, 0)
    return alive


def machine(found):
    """What the figures were measured on."""
    cpu = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.M)
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M)
    system = os.uname()
    lines = [
        f"{os.cpu_count()} CPUs ({cpu[1] if cpu else system.machine}), Linux {system.release}, {release[1] if release else 'unknown'}, "
        f"load {os.getloadavg()[0]:.2f}"
    ]
    versions = []
    for one in found:
        if one.name != "floor":
            said = subprocess.run([one.words[0], "--version"], cwd=BUILT, capture_output=True, text=True, check=False)
            number = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
            versions.append(f"{one.name} {number[0] if number else '?'}")
    return "\n".join([*lines, ", ".join(versions)])


def dump(path, data):
    Path(path).write_text(json.dumps(data, indent=2) + "\n")
