// SPDX-License-Identifier: GPL-2.0
/*
 * Starts kernels in one sandbox, one after the other: making a sandbox takes
 * longer than booting one of its kernels. Its standard input is a socket of
 * whole messages. A message there is a command line, its words ended by zeros,
 * with the descriptor of the output; it is answered by the wait status when
 * the kernel has ended. An empty word kills the kernel. See launcher.py.
 *
 * Usage: launcher LIBRARY, which is preloaded into the kernels.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUEST 65536
#define WORDS 256

static const char *library;
static pid_t kernel;

/* What a kernel that was killed leaves behind, and the next one would remark on. */
static void clean(void)
{
	unlink("/tmp/.uml/kdrv/pid");
	rmdir("/tmp/.uml/kdrv");
	rmdir("/tmp/.uml");
}

static void become(char *words, size_t length, int output)
{
	char *argv[WORDS];
	size_t count = 0;
	sigset_t none;

	for (char *word = words; word < words + length && count < WORDS - 1;
	     word += strlen(word) + 1)
		argv[count++] = word;
	argv[count] = NULL;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	dup2(output, 1);
	dup2(output, 2);
	close(0);
	if (open("/dev/null", O_RDONLY) != 0)
		_exit(126);
	setenv("LD_PRELOAD", library, 1);
	execv(argv[0], argv);
	_exit(127);
}

static int receive(void)
{
	static char request[REQUEST];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec data = { request, sizeof(request) - 1 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	ssize_t length = recvmsg(0, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *sent = CMSG_FIRSTHDR(&message);
	int output;

	if (length <= 0)
		return 0;
	request[length] = 0;
	if (!request[0]) {
		if (kernel)
			kill(kernel, SIGKILL);
		return 1;
	}
	if (!sent || kernel)
		return 0;
	memcpy(&output, CMSG_DATA(sent), sizeof(output));
	kernel = fork();
	if (kernel == 0)
		become(request, (size_t)length, output);
	close(output);
	return kernel > 0;
}

static void reap(void)
{
	int32_t status;
	pid_t ended;
	int found;

	while ((ended = waitpid(-1, &found, WNOHANG)) > 0) {
		if (ended != kernel)
			continue;
		kill(-kernel, SIGKILL);
		kernel = 0;
		clean();
		status = found;
		if (send(0, &status, sizeof(status), MSG_NOSIGNAL) < 0)
			_exit(0);
	}
}

int main(int argc, char **argv)
{
	struct signalfd_siginfo signal;
	struct pollfd waits[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
	sigset_t children;

	if (argc != 2)
		return 2;
	library = argv[1];
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	waits[1].fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
	while (poll(waits, 2, -1) >= 0) {
		while (read(waits[1].fd, &signal, sizeof(signal)) > 0)
			reap();
		if (waits[0].revents && !receive())
			return 0;
	}
	return 1;
}
