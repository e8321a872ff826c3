/* The commands that the benchmark has run: `child MODE [ARG]...`.
 *
 *   exit                 ends at once, with 0
 *   signals PAGE         waits; a handler of SIGUSR1 and SIGTERM notes the time in PAGE, a file that is mapped and shared; ends after SIGTERM
 *   end PAGE             waits until PAGE says so, notes the time, ends
 *   burst COUNT          has COUNT processes end below one parent, then, told to, has that parent end: COUNT orphans at once
 *   stream COUNT MICROS  the same with one at a time, MICROS apart
 *   tree COUNT HOW FIFO  COUNT descendants, 100 below each of COUNT/100; HOW: obey, ignore (SIGTERM), detach (a session each), detach-ignore.
 *                        All of them, and nobody else, hold FIFO open for writing.
 *
 * burst, stream and tree write a line when they are ready, and burst and stream read one before they go on.
 * It does not measure; what it notes is read by drive.c and by `run`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
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
    tell(&page->seen);
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
    tell(&page->ready);
    while (!stop)
        sigsuspend(&none);
    return 0;
}

static int end(const char *path)
{
    page = map(path);
    tell(&page->ready);
    if (await(&page->go, 0) < 0)
        fail("end");
    page->stamp = now();
    return 0;
}

/* ---- burst, stream ---- */

/* One process that ends at once, and is dead when this returns. It shares this one's memory: only its end is wanted. */
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

/* Up goes a byte from each that is ready, or another from one that could not be: the child would wait for ever for the rest. */
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
        return end(argv[2]);
    if (!strcmp(mode, "burst") && argc == 3)
        return burst(atoi(argv[2]));
    if (!strcmp(mode, "stream") && argc == 4)
        return stream(atoi(argv[2]), atoi(argv[3]));
    if (!strcmp(mode, "tree") && argc == 5)
        return tree(atoi(argv[2]), argv[3], argv[4]);
    fprintf(stderr, "child: no such mode\n");
    return 98;
}
