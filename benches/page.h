/* Shared by drive.c and child.c: a page of memory, and a way to wake the other side at a change without a busy loop (futex(2)). */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct page {
    atomic_int ready; /* the child waits */
    atomic_int seen;  /* how many signals its handler has received */
    atomic_int go;    /* the child may end */
    int64_t stamp;    /* when its handler ran, or when it ended, in ns of CLOCK_MONOTONIC */
};

static inline int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static inline void wake(atomic_int *word)
{
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Waits until *word is no longer `old`; -1 and ETIMEDOUT after 10 s, because the word of a child that has failed never changes. */
static inline int await(atomic_int *word, int old)
{
    struct timespec limit = { 10, 0 };
    while (atomic_load(word) == old)
        if (syscall(SYS_futex, word, FUTEX_WAIT, old, &limit, NULL, 0) < 0 && errno == ETIMEDOUT)
            return -1;
    return 0;
}

static inline struct page *map(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *at = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof(struct page)) == 0)
        at = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        perror(path);
        _exit(97);
    }
    close(fd);
    return at;
}
