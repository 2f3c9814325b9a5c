/* A wrong wall clock: preloaded into a process, it shifts the wall clock by SKEW_SECONDS. The monotonic clock is
 * unchanged, as on a machine whose administrator has set the date. The kernel's clock is unchanged too: a wait until a
 * wall-clock time ends at the right time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static time_t skew(void) {
    static time_t seconds;
    static int is_read;
    if (!is_read) {
        const char *text = getenv("SKEW_SECONDS");
        seconds = text ? atoll(text) : 0;
        is_read = 1;
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += skew();
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0) {
        return -1;
    }
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) {
        *now = exact.tv_sec;
    }
    return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

/* No machine has been up for thirty years: whatever is later than that is no monotonic time. */
static struct timespec as_the_kernel_knows_it(const struct timespec *until) {
    struct timespec real = *until;
    if (real.tv_sec > 1000000000) {
        real.tv_sec -= skew();
    }
    return real;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec real = as_the_kernel_knows_it(until);
    if (!wait) {
        *(void **)&wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    return wait(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    struct timespec real = as_the_kernel_knows_it(until);
    if (!wait) {
        *(void **)&wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    }
    return wait(condition, mutex, &real);
}
