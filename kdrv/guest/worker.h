/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A session's worker: the process that enters drivers. It shares the table of
 * descriptors with all the others and has memory of its own. A request comes
 * in its mailbox when the bell rings; the answer goes back the same way.
 */
#ifndef KDRV_WORKER_H
#define KDRV_WORKER_H

#include "sys.h"
#include "wire.h"

/* Drivers may read and write more than the caller of an ioctl() gave. */
#define SLACK 4096

struct mailbox {
	uint32_t kind;
	uint32_t length;
	uint32_t step; /* the system call of a WIRE_CALL that is under way */
	uint32_t answer_length;
	uint8_t request[WIRE_MESSAGE];
	/* Stands before the answer, so that one write sends both. */
	_Alignas(8) uint8_t header[WIRE_HEADER];
	uint8_t answer[WIRE_MESSAGE + SLACK];
};

/* Reads a request. Past its end everything is zero and ok is false. */
struct reader {
	uint8_t *at;
	size_t left;
	bool ok;
};

static uint8_t *take(struct reader *in, uint64_t size)
{
	uint8_t *taken = in->at;

	if (size > in->left) {
		in->ok = false;
		return NULL;
	}
	in->at += size;
	in->left -= size;
	return taken;
}

static uint64_t take_number(struct reader *in, size_t size)
{
	uint8_t *bytes = take(in, size);
	uint64_t number = 0;

	if (bytes)
		memcpy(&number, bytes, size);
	return number;
}

/* A length, that many bytes and a NUL. */
static char *take_string(struct reader *in)
{
	uint64_t length = take_number(in, 4);
	uint8_t *text = take(in, length + 1);

	if (text && text[length] != 0)
		in->ok = false;
	return in->ok ? (char *)text : NULL;
}

static void put_number(uint8_t *at, uint64_t number, size_t size)
{
	memcpy(at, &number, size);
}

static size_t aligned(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

/* A system call being put together from a request. */
struct step {
	uint32_t number;
	uint8_t flags;
	bool skip;
	long arg[6];
	unsigned int outs;
	struct {
		uint8_t kind;
		uint8_t *data;
		size_t size;
	} out[6];
};

/* A buffer that a driver says it filled but did not must not show earlier data. */
static void wipe(uint8_t *data, size_t size)
{
	uint64_t *words = (uint64_t *)data;

	for (size_t i = 0; i < aligned(size) / 8; i++) {
		words[i] = 0;
		__asm__("" : : : "memory"); /* stay a loop: memset() is slow when emulated */
	}
}

/*
 * Room for a buffer that goes back: a length (8 bytes) and the data, aligned.
 * Returns where the next one may begin, or NULL when the answer is full.
 */
static uint8_t *make_room(struct mailbox *box, struct step *step, uint8_t *end, uint8_t kind,
			  const uint8_t *data, uint64_t size)
{
	uint8_t *room = end + 8;

	if (size > WIRE_MESSAGE || (size_t)(room - box->answer) + aligned(size) > WIRE_MESSAGE)
		return NULL;
	wipe(room, size + (data ? SLACK : 0));
	if (data)
		memcpy(room, data, size);
	step->out[step->outs].kind = kind;
	step->out[step->outs].data = room;
	step->out[step->outs].size = size;
	step->outs++;
	return room + aligned(size);
}

static bool read_step(struct mailbox *box, struct reader *in, struct step *step, uint32_t index,
		      uint8_t *end)
{
	unsigned int count;

	memset(step, 0, sizeof(*step));
	step->number = (uint32_t)take_number(in, 4);
	step->flags = (uint8_t)take_number(in, 1);
	count = (unsigned int)take_number(in, 1);
	if (count > COUNT(step->arg))
		return false;
	for (unsigned int i = 0; i < count; i++) {
		uint8_t kind = (uint8_t)take_number(in, 1);
		uint64_t value = take_number(in, 8);
		uint8_t *data = NULL;
		int64_t earlier;

		switch (kind) {
		case WIRE_VALUE:
			step->arg[i] = (long)value;
			break;
		case WIRE_RESULT:
			if (value >= index)
				return false;
			memcpy(&earlier, box->answer + 8 * value, sizeof(earlier));
			step->skip |= earlier < 0;
			step->arg[i] = (long)earlier;
			break;
		case WIRE_IN:
			step->arg[i] = (long)take(in, value);
			break;
		case WIRE_INOUT:
			data = take(in, value);
			if (!data)
				return false;
			/* fall through */
		case WIRE_OUT:
		case WIRE_FILL:
			end = make_room(box, step, end, kind, data, value);
			if (!end)
				return false;
			step->arg[i] = (long)step->out[step->outs - 1].data;
			break;
		default:
			return false;
		}
	}
	return in->ok;
}

static long call_once(const struct step *step, const long *arg)
{
	long result = syscall(step->number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);

	return result == -1 ? -errno : result;
}

static long call_fully(const struct step *step)
{
	long arg[6], done = 0, result;

	memcpy(arg, step->arg, sizeof(arg));
	do {
		result = call_once(step, arg);
		if (result <= 0)
			break;
		done += result;
		arg[1] += result;
		arg[2] -= result;
	} while (arg[2] > 0);
	return result < 0 ? result : done;
}

/* Close the gaps that half-filled buffers left. Returns where the answer now ends. */
static uint8_t *write_outs(const struct step *step, long result, uint8_t *end)
{
	for (unsigned int i = 0; i < step->outs; i++) {
		size_t size = step->out[i].size;

		if (result < 0 && step->out[i].kind != WIRE_INOUT)
			size = 0;
		else if (step->out[i].kind == WIRE_FILL && (size_t)result < size)
			size = (size_t)result;
		memmove(end + 8, step->out[i].data, size);
		put_number(end, size, 8);
		end += 8 + aligned(size);
	}
	return end;
}

static long carry_out_calls(struct mailbox *box, struct reader *in)
{
	uint32_t count = (uint32_t)take_number(in, 4);
	uint8_t *end = box->answer + 8 * (size_t)count;
	bool failed = false;

	if (!in->ok || count > WIRE_MESSAGE / 8)
		return -EBADMSG;
	for (uint32_t i = 0; i < count; i++) {
		struct step step;
		long result = -ECANCELED;

		box->step = i;
		if (!read_step(box, in, &step, i, end))
			return -EBADMSG;
		if (!step.skip && (!failed || (step.flags & WIRE_ALWAYS)))
			result = step.flags & WIRE_FULLY ? call_fully(&step)
							 : call_once(&step, step.arg);
		failed |= result < 0;
		put_number(box->answer + 8 * (size_t)i, (uint64_t)result, 8);
		end = write_outs(&step, result, end);
	}
	return end - box->answer;
}

/* One access to memory; a device sees exactly this width. */
static void access_memory(uint64_t address, uint8_t *data, unsigned int width, bool store)
{
	uint64_t value = 0;

	if (store)
		memcpy(&value, data, width);
#define ACCESS(type)                                              \
	do {                                                      \
		volatile type *cell = (volatile type *)address;   \
		if (store)                                        \
			*cell = (type)value;                      \
		else                                              \
			value = *cell;                            \
	} while (0)
	switch (width) {
	case 1:
		ACCESS(uint8_t);
		break;
	case 2:
		ACCESS(uint16_t);
		break;
	case 4:
		ACCESS(uint32_t);
		break;
	default:
		ACCESS(uint64_t);
	}
#undef ACCESS
	if (!store)
		memcpy(data, &value, width);
}

static long carry_out_access(struct mailbox *box, struct reader *in)
{
	bool store = box->kind == WIRE_POKE;
	uint64_t address = take_number(in, 8);
	uint32_t width = (uint32_t)take_number(in, 4);
	uint64_t size = store ? in->left : take_number(in, 8);
	uint8_t *data = store ? in->at : box->answer + 8;

	if (!in->ok || size > WIRE_MESSAGE - 8 || width > 8 || !width || (width & (width - 1)) ||
	    size % width)
		return -EBADMSG;
	for (uint64_t at = 0; at < size; at += width)
		access_memory(address + at, data + at, width, store);
	put_number(box->answer, size, 8);
	return 8 + (long)(store ? 0 : size);
}

#include "program.h"

static void ignore_signal(int number)
{
	(void)number;
}

/* Serve one mailbox for ever. The bell rings for each request; done tells the first process. */
static void work(struct mailbox *box, pid_t parent, int bell, int done, uint16_t index)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != parent)
		_exit(0); /* it died before it could take us along */
	prctl(PR_SET_NAME, (unsigned long)"kdrv-session", 0, 0, 0); /* in an oops */
	on_signal(SIGUSR1, ignore_signal);
	on_signal(SIGPIPE, HANDLER_IGNORE);
	set_signal_mask(SIGNAL_BIT(SIGCHLD));
	for (;;) {
		struct reader in = { .at = box->request, .ok = true };
		char ring;
		long length = read(bell, &ring, 1);

		if (length < 0 && errno == EINTR)
			continue;
		if (length != 1)
			_exit(0);
		in.left = box->length;
		if (box->kind == WIRE_CALL)
			length = carry_out_calls(box, &in);
		else if (box->kind == WIRE_RUN)
			length = carry_out_program(box, &in);
		else
			length = carry_out_access(box, &in);
		if (length < 0) {
			box->kind = WIRE_REFUSED;
			put_number(box->answer, (uint64_t)length, 8);
			length = 8;
		} else {
			box->kind = WIRE_ANSWER;
		}
		box->answer_length = (uint32_t)length;
		while (write(done, &index, sizeof(index)) < 0 && errno == EINTR)
			;
	}
}

#endif
