// SPDX-License-Identifier: GPL-2.0
/*
 * What the host would tell a User Mode Linux kernel that differs from run to
 * run: random numbers and the wall clock. Preloaded into the kernel's process.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The same moment as TIME_OF_DAY in kdrv/sim/calendar.py. */
#define START_OF_TIME 1704067200

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
