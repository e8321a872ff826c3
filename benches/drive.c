/* Starts, signals and waits for the wrappers, and prints the values of each: one line for each event, `INDEX VALUE...`.
 *
 *   drive MODE ROUNDS DIR ;; COMMAND [ARG]... ;; COMMAND [ARG]... ;; ...
 *
 * In each round every command has one turn, in a random order, so that a slow second of the machine affects all of them. The INDEX counts
 * the commands from 0; times are ns of CLOCK_MONOTONIC; the word @PAGE in a command stands for the page that it shares with the child.
 *
 *   start   wall: from before vfork(2) to after wait4(2); cpu: user and system time of the wrapper and its child, in us; faults: minor and major
 *           page faults of both
 *   faults  page faults of the wrapper alone, then those of its child (proc_pid_stat(5), of a zombie that is not yet reaped)
 *   steady  from before kill(SIGUSR1) to the child's handler; all wrappers are started once and wait
 *   first   the same with SIGTERM, each time the first signal of a new wrapper
 *   end     from the child's last instruction to after the wrapper's wait4(2)
 *
 * pinned-steady and pinned-first are the same with this program on one CPU, as a real-time process, and its children on another: the
 * scheduler then neither places the processes nor lets them wait for each other's CPU.
 *
 * The wrappers run child.c as their command. If this program ends first, the kernel sends SIGKILL to the wrappers. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "page.h"

enum { MOST = 64 };

static struct { char **words; struct page *page; pid_t pid; } at[MOST];
static int count;
/* The CPU for the wrappers and their children; -1: any. */
static int others_cpu = -1;
/* The lines, and the errors. The wrappers have /dev/null for all three descriptors: they neither write among the lines nor keep the pipe open, at
 * whose end the reader waits. */
static FILE *out, *complaints;

static _Noreturn void fail(const char *what)
{
    fprintf(complaints, "drive: %s: %s\n", what, strerror(errno));
    exit(97);
}

static void rest(long micros)
{
    struct timespec t = { micros / 1000000, micros % 1000000 * 1000 };
    nanosleep(&t, NULL);
}

static void run_on(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) < 0)
        fail("sched_setaffinity");
}

/* Takes the first CPU that this process may use for itself, and the second for the wrappers. */
static void pin(void)
{
    struct sched_param priority = { 50 };
    cpu_set_t mine;
    int cpus[2], found = 0;
    if (sched_getaffinity(0, sizeof mine, &mine) < 0)
        fail("sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &mine))
            cpus[found++] = cpu;
    if (found < 2) {
        errno = ENODEV;
        fail("a second CPU");
    }
    run_on(cpus[0]);
    others_cpu = cpus[1];
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority) < 0)
        fprintf(complaints, "drive: no real-time priority (%s): other processes can delay the figures\n", strerror(errno));
}

static void start(int i)
{
    pid_t pid = vfork();
    if (pid == 0) {
        if (others_cpu >= 0)
            run_on(others_cpu);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(at[i].words[0], at[i].words);
        _exit(96);
    }
    if (pid < 0)
        fail("vfork");
    at[i].pid = pid;
}

static void finish(int i, struct rusage *usage)
{
    int status;
    if (wait4(at[i].pid, &status, 0, usage) < 0)
        fail("wait4");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(complaints, "drive: %s ended with wait status %#x\n", at[i].words[0], (unsigned)status);
        exit(97);
    }
}

static void expect(int i, atomic_int *word, int old)
{
    if (await(word, old) < 0)
        fail(at[i].words[0]);
}

/* Starts a wrapper, and waits until its child is ready; 3 ms later both are asleep. */
static void start_and_settle(int i)
{
    memset(at[i].page, 0, sizeof *at[i].page);
    start(i);
    expect(i, &at[i].page->ready, 0);
    rest(3000);
}

static int64_t micros(struct timeval t)
{
    return t.tv_sec * INT64_C(1000000) + t.tv_usec;
}

static void one_start(int i)
{
    struct rusage usage;
    int64_t before = now();
    start(i);
    finish(i, &usage);
    int64_t wall = now() - before;
    fprintf(out, "%d %ld %ld %ld\n", i, (long)wall, (long)(micros(usage.ru_utime) + micros(usage.ru_stime)), usage.ru_minflt + usage.ru_majflt);
}

static void one_faults(int i)
{
    char path[64], text[1024];
    long minor, minor_of_children, major, major_of_children;
    siginfo_t info;
    start(i);
    if (waitid(P_PID, (id_t)at[i].pid, &info, WEXITED | WNOWAIT) < 0)
        fail("waitid");
    snprintf(path, sizeof path, "/proc/%d/stat", at[i].pid);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(text, sizeof text, file))
        fail(path);
    fclose(file);
    /* ") Z ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt" */
    if (sscanf(strrchr(text, ')'), ") %*c %*d %*d %*d %*d %*d %*u %ld %ld %ld %ld", &minor, &minor_of_children, &major, &major_of_children) != 4)
        fail(path);
    finish(i, NULL);
    fprintf(out, "%d %ld %ld\n", i, minor + major, minor_of_children + major_of_children);
}

static void one_signal(int i, int signal)
{
    int old = atomic_load(&at[i].page->seen);
    int64_t before = now();
    if (kill(at[i].pid, signal) < 0)
        fail("kill");
    expect(i, &at[i].page->seen, old);
    fprintf(out, "%d %ld\n", i, (long)(at[i].page->stamp - before));
}

static void one_steady(int i)
{
    rest(300 + rand() % 400);
    one_signal(i, SIGUSR1);
}

static void one_first(int i)
{
    start_and_settle(i);
    one_signal(i, SIGTERM);
    finish(i, NULL);
}

static void one_end(int i)
{
    start_and_settle(i);
    wake(&at[i].page->go);
    finish(i, NULL);
    fprintf(out, "%d %ld\n", i, (long)(now() - at[i].page->stamp));
}

static void rounds(int many, void (*turn)(int))
{
    int order[MOST];
    for (int i = 0; i < count; i++)
        order[i] = i;
    while (many-- > 0) {
        for (int i = count - 1; i > 0; i--) {
            int j = rand() % (i + 1), swap = order[i];
            order[i] = order[j];
            order[j] = swap;
        }
        for (int i = 0; i < count; i++)
            turn(order[i]);
    }
}

static void commands(char **words, const char *dir)
{
    for (; *words; words++) {
        if (strcmp(*words, ";;") == 0) {
            if (count == MOST)
                fail("too many commands");
            char path[4096];
            snprintf(path, sizeof path, "%s/page-%d", dir, count);
            at[count].page = map(path);
            at[count++].words = words + 1;
            *words = NULL;
        } else if (strcmp(*words, "@PAGE") == 0) {
            if (asprintf(words, "%s/page-%d", dir, count - 1) < 0)
                fail("asprintf");
        }
    }
}

int main(int argc, char **argv)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    complaints = fdopen(fcntl(2, F_DUPFD_CLOEXEC, 3), "w");
    out = fdopen(fcntl(1, F_DUPFD_CLOEXEC, 3), "w");
    if (argc < 5 || null < 0 || !complaints || !out || setvbuf(out, NULL, _IOFBF, 1 << 20))
        return 98;
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    const char *mode = argv[1];
    int many = atoi(argv[2]);
    commands(argv + 4, argv[3]);
    srand((unsigned)now());
    if (!strncmp(mode, "pinned-", 7)) {
        mode += 7;
        pin();
    }

    if (!strcmp(mode, "start")) {
        rounds(many, one_start);
    } else if (!strcmp(mode, "faults")) {
        rounds(many, one_faults);
    } else if (!strcmp(mode, "steady")) {
        for (int i = 0; i < count; i++)
            start_and_settle(i);
        rounds(many, one_steady);
        for (int i = 0; i < count; i++) {
            kill(at[i].pid, SIGTERM);
            finish(i, NULL);
        }
    } else if (!strcmp(mode, "first")) {
        rounds(many, one_first);
    } else if (!strcmp(mode, "end")) {
        rounds(many, one_end);
    } else {
        return 98;
    }
    return fclose(out) ? 97 : 0;
}
