/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The requests that the first process answers, itself and at once.
 */
#ifndef KDRV_REQUESTS_H
#define KDRV_REQUESTS_H

#include "outbox.h"

#define INSPECT_MOST 4000 /* of each file below /proc */

static void greet(uint32_t call)
{
	uint32_t numbers[] = { WIRE_VERSION, WIRE_CHUNK, WIRE_MESSAGE, WIRE_SESSIONS };
	uint8_t data[sizeof(numbers) + sizeof(struct utsname)];
	size_t used = sizeof(numbers);
	struct utsname names;
	const char *words[] = { names.machine, names.release, names.version };

	uname(&names);
	memcpy(data, numbers, sizeof(numbers));
	for (size_t i = 0; i < COUNT(words); i++) {
		size_t length = strlen(words[i]) + 1;

		memcpy(data + used, words[i], length);
		used += length;
	}
	reply(WIRE_HELLO, call, 0, 0, data, used);
}

static int spawn(void)
{
	for (uint16_t number = 1; number < WIRE_SESSIONS; number++) {
		if (sessions[number].open)
			continue;
		if (!start_worker(number))
			return -EAGAIN;
		sessions[number].open = true;
		return number;
	}
	return -EMFILE;
}

static size_t read_proc(pid_t pid, const char *name, uint8_t *data)
{
	char path[48] = "/proc/", digits[12];
	size_t at = strlen(path), count = 0, used = 0;
	int fd;

	do
		digits[count++] = (char)('0' + pid % 10);
	while ((pid /= 10));
	while (count)
		path[at++] = digits[--count];
	path[at++] = '/';
	memcpy(path + at, name, strlen(name) + 1);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && used < INSPECT_MOST) {
		ssize_t got = read(fd, data + used, INSPECT_MOST - used);

		if (got <= 0)
			break;
		used += (size_t)got;
	}
	if (fd >= 0)
		close(fd);
	return used;
}

static void inspect(const struct wire_header *request, const struct worker *worker)
{
	static const char *const files[] = { "stat", "syscall", "wchan", "stack" };
	static uint8_t data[CONTROL_MOST];
	size_t used = 16;

	memset(data, 0, used);
	if (worker) {
		put_number(data, (uint32_t)worker->pid, 4);
		put_number(data + 4, worker->call, 4);
		put_number(data + 8, worker->box->step, 4);
		put_number(data + 12, worker->state == BUSY, 4);
	}
	for (size_t i = 0; i < COUNT(files); i++) {
		size_t got = worker && worker->pid ?
				     read_proc(worker->pid, files[i], data + used + 4) :
				     0;

		put_number(data + used, got, 4);
		used += 4 + got;
	}
	reply(WIRE_ANSWER, request->call, request->session, 0, data, used);
}

static void answer(const struct wire_header *request)
{
	uint16_t number = request->session;
	struct worker *worker;
	int64_t result = 0;

	if (number >= WIRE_SESSIONS || !sessions[number].open) {
		refuse(request, ESRCH);
		return;
	}
	worker = sessions[number].worker;
	switch (request->kind) {
	case WIRE_PING:
		break;
	case WIRE_GREET:
		greet(request->call);
		return;
	case WIRE_SPAWN:
		result = spawn();
		break;
	case WIRE_CLOSE:
		sessions[number].open = number == 0;
		/* fall through */
	case WIRE_RESET:
		drop_worker(number);
		break;
	case WIRE_INTERRUPT:
		if (worker && worker->pid)
			kill(worker->pid, SIGUSR1);
		break;
	case WIRE_INSPECT:
		inspect(request, worker);
		return;
	case WIRE_GO:
		if (worker && worker->call == request->call)
			worker->asking = false;
		return;
	default:
		refuse(request, ENOSYS);
		return;
	}
	reply(WIRE_ANSWER, request->call, number, result, NULL, 0);
}

#endif
