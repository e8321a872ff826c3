/* The commands that the benchmark runs: `child MODE [ARG]...`.
 *
 *   exit                 ends at once, with 0
 *   signals PAGE         waits; a handler of SIGUSR1 and SIGTERM notes the time in PAGE, a file that is mapped and shared; ends after SIGTERM
 *   end PAGE [COUNT THREADS]
 *                        waits for the change in PAGE, notes the time, ends; leaves COUNT processes of THREADS threads each
 *   crowd COUNT          COUNT processes that sleep until a line comes, or stdin ends
 *   burst COUNT          COUNT processes end below one parent; after a line on stdin, that parent ends: COUNT orphans at once
 *   stream COUNT MICROS  the same with one at a time, MICROS apart
 *   tree COUNT HOW FIFO  COUNT descendants, 100 below each of COUNT/100; HOW: obey, ignore (SIGTERM), detach (a session each), detach-ignore.
 *                        All of them, and no other process, hold FIFO open for writing.
 *
 * burst, stream, tree and crowd write a line when they are ready, and all but tree read one before they go on.
 * It does not measure; drive.c and `run` read the times that it notes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "page.h"

static struct page *page;
static volatile sig_atomic_t stop;

static _Noreturn void fail(const char *what)
{
    perror(what);
    _exit(99);
}

static void line(const char *text)
{
    if (write(1, text, strlen(text)) < 0)
        fail("write");
}

static void wait_for_line(void)
{
    char byte;
    while (read(0, &byte, 1) == 1 && byte != '\n')
        ;
}

/* ---- signals, end ---- */

static void note(int signal)
{
    page->stamp = now();
    stop |= signal == SIGTERM;
    wake(&page->seen);
}

static int signals(const char *path)
{
    struct sigaction action = { .sa_handler = note };
    sigset_t none, both;

    page = map(path);
    sigemptyset(&none);
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGTERM);
    sigprocmask(SIG_BLOCK, &both, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    wake(&page->ready);
    while (!stop)
        sigsuspend(&none);
    return 0;
}

static void *sleep_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* A process with so many threads. It writes a byte when all of them run. */
static _Noreturn void leftover(int threads, int ready)
{
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    for (int i = 1; i < threads; i++)
        if ((errno = pthread_create(&thread, &small, sleep_for_ever, NULL)))
            fail("pthread_create");
    if (write(ready, "x", 1) != 1)
        fail("write");
    for (;;)
        pause();
}

static int end(const char *path, int count, int threads)
{
    int pipes[2];
    char byte;

    page = map(path);
    if (pipe(pipes) < 0)
        fail("pipe");
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid == 0)
            leftover(threads, pipes[1]);
    }
    close(pipes[1]);
    for (int i = 0; i < count; i++)
        if (read(pipes[0], &byte, 1) != 1)
            fail("a leftover process");
    wake(&page->ready);
    if (await(&page->go, 0) < 0)
        fail("end");
    page->stamp = now();
    return 0;
}

/* ---- crowd ---- */

static int crowd(int count)
{
    pid_t *pids = calloc((size_t)count + 1, sizeof *pids);
    int forked = 0;
    if (!pids)
        fail("calloc");
    while (forked < count && (pids[forked] = fork()) > 0)
        forked++;
    if (forked < count && pids[forked] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    line(forked == count ? "ready\n" : "no room\n");
    wait_for_line();
    for (int i = 0; i < forked; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}

/* ---- burst, stream ---- */

/* Starts a process that ends at once, and returns when it is a zombie. It shares this process's memory, because it only has to end. */
static void dead_child(void)
{
    siginfo_t info;
    pid_t pid = vfork();
    if (pid == 0)
        _exit(0);
    if (pid < 0)
        fail("vfork");
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
}

static int burst(int count)
{
    pid_t parent = fork();
    if (parent < 0)
        fail("fork");
    if (parent == 0) {
        for (int i = 0; i < count; i++)
            dead_child();
        line("ready\n");
        wait_for_line();
        _exit(0);
    }
    waitpid(parent, NULL, 0);
    line("done\n");
    for (;;)
        pause();
}

static int stream(int count, int micros)
{
    struct timespec gap = { 0, micros * 1000L };
    line("ready\n");
    wait_for_line();
    for (int i = 0; i < count; i++) {
        pid_t parent = fork();
        if (parent < 0)
            fail("fork");
        if (parent == 0) {
            dead_child();
            _exit(0);
        }
        waitpid(parent, NULL, 0);
        nanosleep(&gap, NULL);
    }
    line("done\n");
    for (;;)
        pause();
}

/* ---- tree ---- */

static int detach, ignore, up;

/* Each process writes an 'x' to `up` when it is ready. One that cannot fork writes a '!': else this command would wait for ever for the rest. */
static _Noreturn void give_up(void)
{
    if (write(up, "!", 1) != 1)
        perror("write");
    fail("fork");
}

static void wait_here(void)
{
    if (detach)
        setsid();
    if (ignore)
        signal(SIGTERM, SIG_IGN);
    if (write(up, "x", 1) != 1)
        fail("write");
    for (;;)
        pause();
}

static void descend(int count)
{
    pid_t pid = fork();
    if (pid < 0)
        give_up();
    if (pid > 0)
        return;
    for (int i = 1; i < count; i++) {
        pid = fork();
        if (pid < 0)
            give_up();
        if (pid == 0)
            wait_here();
    }
    wait_here();
}

static int tree(int count, const char *how, const char *fifo)
{
    int pipes[2];
    char buffer[4096];

    if (open(fifo, O_WRONLY) < 0 || pipe(pipes) < 0)
        fail(fifo);
    detach = strstr(how, "detach") != NULL;
    ignore = strstr(how, "ignore") != NULL;
    up = pipes[1];
    for (int left = count; left > 0; left -= 100)
        descend(left < 100 ? left : 100);
    for (int ready = 0; ready < count;) {
        ssize_t got = read(pipes[0], buffer, sizeof buffer);
        if (got <= 0 || memchr(buffer, '!', (size_t)got))
            fail("a descendant");
        ready += (int)got;
    }
    if (ignore && !detach)
        signal(SIGTERM, SIG_IGN);
    line("ready\n");
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "exit"))
        return 0;
    if (!strcmp(mode, "signals") && argc == 3)
        return signals(argv[2]);
    if (!strcmp(mode, "end") && argc == 3)
        return end(argv[2], 0, 1);
    if (!strcmp(mode, "end") && argc == 5)
        return end(argv[2], atoi(argv[3]), atoi(argv[4]));
    if (!strcmp(mode, "crowd") && argc == 3)
        return crowd(atoi(argv[2]));
    if (!strcmp(mode, "burst") && argc == 3)
        return burst(atoi(argv[2]));
    if (!strcmp(mode, "stream") && argc == 4)
        return stream(atoi(argv[2]), atoi(argv[3]));
    if (!strcmp(mode, "tree") && argc == 5)
        return tree(atoi(argv[2]), argv[3], argv[4]);
    fprintf(stderr, "child: no such mode\n");
    return 98;
}
