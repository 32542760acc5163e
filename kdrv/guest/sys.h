/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The little the agent wants from a C library beyond nolibc: signals, waiting
 * and descriptors out of the way. Builds against nolibc and glibc alike.
 */
#ifndef KDRV_SYS_H
#define KDRV_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2() in glibc */
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/reboot.h>
#include <linux/sched.h>

/* The agent's own descriptors start here, so that a test's first open() is 3. */
#define AGENT_FD 512

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* struct sigaction as the kernel has it; the libraries disagree. */
struct kernel_action {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

#define HANDLER_DEFAULT ((void (*)(int))0)
#define HANDLER_IGNORE ((void (*)(int))1)
#define SIGNAL_BIT(number) (1ULL << ((number) - 1))

#ifdef __x86_64__
/* The kernel does not return from a handler by itself here. */
void kdrv_restore(void);
__asm__(".text\n"
	"kdrv_restore:\n"
	"	mov $15, %eax\n" /* __NR_rt_sigreturn */
	"	syscall\n");
#define KERNEL_RESTORER 0x04000000UL
#endif

static inline void on_signal(int number, void (*handler)(int))
{
	struct kernel_action action = { .handler = handler };

#ifdef __x86_64__
	action.flags = KERNEL_RESTORER;
	action.restorer = kdrv_restore;
#endif
	syscall(__NR_rt_sigaction, number, &action, NULL, sizeof(action.mask));
}

static inline void set_signal_mask(uint64_t mask)
{
	syscall(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &mask, NULL, sizeof(mask));
}

/* poll() that lets every signal in while it waits, and only then. */
static inline int wait_for(struct pollfd *fds, unsigned int count, int milliseconds)
{
	struct timespec limit = { .tv_sec = milliseconds / 1000,
				  .tv_nsec = milliseconds % 1000 * 1000000L };
	uint64_t mask = 0;

	return (int)syscall(__NR_ppoll, fds, count, milliseconds < 0 ? NULL : &limit, &mask,
			    sizeof(mask));
}

static inline int64_t now_ms(void)
{
	struct timespec now = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Move a descriptor to the agent's range. */
static inline int hoist(int fd)
{
	int high = fd < 0 ? -1 : (int)syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, AGENT_FD);

	if (fd >= 0)
		close(fd);
	return high;
}

static inline bool hoisted_pipe(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	ends[0] = hoist(ends[0]);
	ends[1] = hoist(ends[1]);
	if (ends[0] >= 0 && ends[1] >= 0)
		return true;
	close(ends[0]);
	close(ends[1]);
	return false;
}

/* End the machine. Blocks in drivers: never call it in the first process. */
static inline void power_off(void)
{
	static const unsigned int ways[] = { LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART,
					     LINUX_REBOOT_CMD_HALT };

	syscall(__NR_sync);
	for (size_t i = 0; i < COUNT(ways); i++)
		syscall(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, ways[i], NULL);
}

#endif
