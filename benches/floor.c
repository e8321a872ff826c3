/* The floor: the cost of starting, forwarding, reaping and ending in C, and of nothing else: no option, no log, no grace period, no drain.
 *
 * It does only the work that every wrapper has to do. All signals are blocked from the start and read by sigwaitinfo(2). The child gets the old
 * mask back. Orphans become this program's children (PR_SET_CHILD_SUBREAPER) and are reaped. It exits with the child's exit code, or with 128 plus
 * the number of its signal.
 *
 * floor [--] COMMAND [ARG]... */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void run(char **command, const sigset_t *mask)
{
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(command[0], command);
    _exit(errno == ENOENT ? 127 : 126);
}

/* Reaps every process that has ended; exits if the child is one of them. */
static void reap(pid_t child)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == child)
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* A separate function: values that the caller of vfork(2) keeps in registers may be lost when the child returns from vfork(2). */
static __attribute__((noinline)) pid_t start(char **command, const sigset_t *mask)
{
    pid_t child = vfork();
    if (child == 0)
        run(command, mask);
    return child;
}

int main(int argc, char **argv)
{
    char **command = argv + 1;
    sigset_t all, inherited;
    siginfo_t received;
    pid_t child;

    if (argc > 1 && strcmp(*command, "--") == 0)
        command++;
    if (*command == NULL)
        return 125;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &inherited);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    child = start(command, &inherited);
    if (child < 0)
        return 125;
    for (;;) {
        int signal = sigwaitinfo(&all, &received);
        if (signal == SIGCHLD)
            reap(child);
        else if (signal > 0)
            kill(child, signal);
    }
}
