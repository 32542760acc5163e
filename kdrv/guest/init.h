/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What an init does before it serves: file systems, the channel, a shell.
 */
#ifndef KDRV_INIT_H
#define KDRV_INIT_H

#include "sys.h"

#include <asm/termbits.h>

#define CHANNEL_WAIT_MS 10000

static const struct place {
	const char *type, *path;
} places[] = {
	{ "devtmpfs", "/dev" }, /* first: the channel is there */
	{ "proc", "/proc" },
	{ "sysfs", "/sys" },
	{ "tmpfs", "/tmp" },
	{ "devpts", "/dev/pts" },
	{ "debugfs", "/sys/kernel/debug" },
	{ "tracefs", "/sys/kernel/tracing" },
	{ "configfs", "/sys/kernel/config" },
};

/* Mount what the kernel has of places from first to last; what it lacks is no error. */
static void mount_places(size_t first, size_t last)
{
	for (size_t i = first; i < last; i++) {
		mkdir(places[i].path, 0755);
		mount(places[i].type, places[i].path, places[i].type, 0, NULL);
	}
}

static void say(const char *text)
{
	if (write(2, text, strlen(text)) < 0)
		return;
}

/* A terminal such as hvc0 would echo and edit what the host sends. False: it is none. */
static bool make_raw(int fd)
{
	struct termios mode;

	if (ioctl(fd, TCGETS, &mode) < 0)
		return false;
	mode.c_iflag = 0;
	mode.c_oflag = 0;
	mode.c_lflag = 0;
	mode.c_cflag = (mode.c_cflag & ~(unsigned int)(CSIZE | PARENB)) | CS8 | CREAD;
	mode.c_cc[VMIN] = 1;
	mode.c_cc[VTIME] = 0;
	return ioctl(fd, TCSETS, &mode) == 0;
}

static int open_node(const char *path)
{
	return hoist(open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

/*
 * The channel that kdrv_agent names: a device, or fd:N for a descriptor that
 * is open already. Drivers may still be finding their devices: wait a while.
 */
static int open_channel(void)
{
	const char *name = getenv("kdrv_agent");
	int64_t until = now_ms() + CHANNEL_WAIT_MS;
	int fd = -1;

	if (name && strncmp(name, "fd:", 3) == 0) {
		fd = hoist(atoi(name + 3));
		syscall(__NR_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
		return fd;
	}
	do {
		fd = open_node(name ? name : "/dev/vport0p1");
		if (fd < 0 && !name)
			fd = open_node("/dev/hvc0");
		if (fd < 0)
			wait_for(NULL, 0, 1);
	} while (fd < 0 && now_ms() < until);
	return fd;
}

/* A shell for a person at the console. */
static pid_t start_shell(void)
{
	char *const argv[] = { "sh", NULL };
	char *const envp[] = { "PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TERM=linux",
			       "PS1=kdrv:\\w\\$ ", NULL };
	pid_t child = fork();
	int console;

	if (child != 0)
		return child;
	setsid();
	console = open("/dev/console", O_RDWR);
	ioctl(console, TIOCSCTTY, 0);
	dup2(console, 0);
	dup2(console, 1);
	dup2(console, 2);
	set_signal_mask(0);
	execve("/bin/sh", argv, envp);
	say("kdrv: no /bin/sh in this initramfs\n");
	_exit(127);
}

#endif
