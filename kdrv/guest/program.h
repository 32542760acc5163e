/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Running a program: its output and errors come back as one stream, cut at a
 * limit, and its process group is killed when its time is over.
 */
#ifndef KDRV_PROGRAM_H
#define KDRV_PROGRAM_H

/* Set by worker.h, which includes this file: struct mailbox, struct reader. */

#define PROGRAM_WORDS 1024
#define PROGRAM_HEADER 16 /* int64 result, uint32 wait status, uint32 flags */
#define KILLED_MS 2000 /* how long a killed program may take to be gone */
#define SURPLUS 512
#define LAST_READS (65536 / SURPLUS) /* empty a pipe, even when all of it is surplus */

struct program {
	uint32_t timeout_ms;
	uint32_t limit;
	char *directory;
	char *words[PROGRAM_WORDS];
	char **argv;
	char **envp;
};

static char **take_words(struct reader *in, struct program *program, unsigned int *used)
{
	char **first = program->words + *used;
	uint32_t count = (uint32_t)take_number(in, 4);

	if (count >= PROGRAM_WORDS - *used)
		in->ok = false;
	for (uint32_t i = 0; i < count && in->ok; i++)
		first[i] = take_string(in);
	if (in->ok) {
		first[count] = NULL;
		*used += count + 1;
	}
	return first;
}

static bool read_program(struct reader *in, struct program *program)
{
	unsigned int used = 0;

	program->timeout_ms = (uint32_t)take_number(in, 4);
	program->limit = (uint32_t)take_number(in, 4);
	program->directory = take_string(in);
	program->argv = take_words(in, program, &used);
	program->envp = take_words(in, program, &used);
	return in->ok && program->argv[0] && program->limit <= WIRE_MESSAGE - PROGRAM_HEADER &&
	       program->timeout_ms <= INT32_MAX;
}

static void execute(const struct program *program)
{
	static const char *const places[] = { "/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/" };
	const char *name = program->argv[0];
	char path[256];

	if (strchr(name, '/')) {
		execve(name, program->argv, program->envp);
		return;
	}
	for (size_t i = 0; i < COUNT(places); i++) {
		size_t length = strlen(places[i]), rest = strlen(name) + 1;

		if (length + rest > sizeof(path)) {
			errno = ENAMETOOLONG;
			return;
		}
		memcpy(path, places[i], length);
		memcpy(path + length, name, rest);
		execve(path, program->argv, program->envp);
		if (errno != ENOENT)
			return;
	}
	execve("/bin/busybox", program->argv, program->envp); /* perhaps it is an applet's name */
}

/* In the child: becomes the program, or says through the pipe why not. */
static void become(const struct program *program, int output, int failure)
{
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int error;

	setsid();
	dup2(nothing, 0);
	dup2(output, 1);
	dup2(output, 2);
	on_signal(SIGPIPE, HANDLER_DEFAULT);
	set_signal_mask(0);
	if (chdir(program->directory) == 0)
		execute(program);
	error = errno;
	if (write(failure, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

/* What the program has written so far goes to the answer; false at its end. */
static bool collect(int output, uint8_t *buffer, uint32_t limit, uint32_t *used, uint32_t *flags)
{
	uint8_t surplus[SURPLUS];
	ssize_t got;

	if (*used < limit) {
		got = read(output, buffer + *used, limit - *used);
		if (got > 0)
			*used += (uint32_t)got;
	} else {
		got = read(output, surplus, sizeof(surplus));
		if (got > 0)
			*flags |= WIRE_TRUNCATED;
	}
	return got > 0 || (got < 0 && errno == EINTR);
}

/* Wait for the end of a child, or of its time; collects its output meanwhile. */
static bool attend(pid_t child, int output, int64_t until, uint8_t *buffer, uint32_t limit,
		   uint32_t *used, uint32_t *flags, int *status)
{
	struct pollfd fd = { .fd = output, .events = POLLIN };

	while (waitpid(child, status, WNOHANG) != child) {
		int64_t left = until - now_ms();

		if (left <= 0)
			return false;
		if (wait_for(&fd, 1, left > INT32_MAX ? INT32_MAX : (int)left) > 0 &&
		    !collect(output, buffer, limit, used, flags))
			fd.fd = -1;
	}
	/* What it wrote last is still in the pipe; others may hold the pipe open and go on. */
	for (int reads = 0; reads < LAST_READS && wait_for(&fd, 1, 0) > 0; reads++)
		if (!collect(output, buffer, limit, used, flags))
			break;
	return true;
}

static long carry_out_program(struct mailbox *box, struct reader *in)
{
	static struct program program;
	uint8_t *buffer = box->answer + PROGRAM_HEADER;
	uint32_t used = 0, flags = 0;
	int output[2], failure[2], status = 0, error = 0;
	pid_t child;

	if (!read_program(in, &program))
		return -EBADMSG;
	if (!hoisted_pipe(output) || !hoisted_pipe(failure))
		return -EMFILE;
	child = fork();
	if (child == 0)
		become(&program, output[1], failure[1]);
	close(output[1]);
	close(failure[1]);
	if (child < 0) {
		error = EAGAIN;
	} else if (read(failure[0], &error, sizeof(error)) <= 0 &&
		   !attend(child, output[0], now_ms() + program.timeout_ms, buffer, program.limit,
			   &used, &flags, &status)) {
		flags |= WIRE_TIMED_OUT;
		status = SIGKILL;
		kill(-child, SIGKILL);
		attend(child, output[0], now_ms() + KILLED_MS, buffer, program.limit, &used, &flags,
		       &status);
	} else if (error) {
		waitpid(child, &status, 0);
	}
	close(output[0]);
	close(failure[0]);
	put_number(box->answer, (uint64_t)-(int64_t)error, 8);
	put_number(box->answer + 8, (uint32_t)status, 4);
	put_number(box->answer + 12, flags, 4);
	return PROGRAM_HEADER + (long)used;
}

#endif
