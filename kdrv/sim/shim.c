// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded into the process of a User Mode Linux kernel. Keeps out what the
 * host would tell it that differs from run to run: random numbers and the wall
 * clock. And keeps its output in order.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The same moment as TIME_OF_DAY in kdrv/sim/calendar.py. */
#define START_OF_TIME 1704067200

/*
 * The kernel's early console is printf() (arch/um/kernel/early_printk.c), all
 * else goes by write(): in a file, what was said first would come last.
 */
__attribute__((constructor)) static void keep_order(void)
{
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
}

ssize_t getrandom(void *buffer, size_t length, unsigned int flags)
{
	(void)flags;
	memset(buffer, 0x5a, length);
	return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	if (clock != CLOCK_REALTIME)
		return (int)syscall(SYS_clock_gettime, clock, now);
	now->tv_sec = START_OF_TIME;
	now->tv_nsec = 0;
	return 0;
}
