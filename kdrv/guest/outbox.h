/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What goes to the host: the short answers of the first process before all
 * else, then a frame of each worker's answer in turn.
 */
#ifndef KDRV_OUTBOX_H
#define KDRV_OUTBOX_H

#include "crew.h"

#define CONTROL 65536
#define CONTROL_MOST 16384 /* the longest answer of the first process */

static int channel = -1;
static bool terminal; /* the channel is one */
static bool away = true; /* the host has not opened the channel, or closed it */

/* Output: the frames of the first process, and the frame that is being sent. */
static uint8_t control[CONTROL];
static size_t control_length, control_sending;
static const uint8_t *output;
static size_t output_left;
static unsigned int last_speaker;

static void reply(uint8_t kind, uint32_t call, uint16_t session, int64_t result, const void *data,
		  size_t size)
{
	uint8_t *at = control + control_length;
	struct wire_header header = { .magic = WIRE_MAGIC, .length = (uint16_t)(8 + size),
				      .call = call, .session = session, .kind = kind };

	if (control_length + WIRE_HEADER + 8 + size > CONTROL)
		return;
	memcpy(at, &header, sizeof(header));
	put_number(at + WIRE_HEADER, (uint64_t)result, 8);
	if (size)
		memcpy(at + WIRE_HEADER + 8, data, size);
	control_length += WIRE_HEADER + 8 + size;
}

static void refuse(const struct wire_header *request, int error)
{
	reply(WIRE_REFUSED, request->call, request->session, -error, NULL, 0);
}

/* The channel's other end is gone. */
static void leave(void)
{
	if (getpid() != 1)
		_exit(0);
	away = true;
}

static bool gone(ssize_t moved)
{
	return moved == 0 || (moved < 0 && errno != EAGAIN && errno != EINTR);
}

/* Make the next frame of a worker's answer, its header just before its data. */
static bool next_frame(struct worker *worker)
{
	size_t left = worker->box->answer_length - worker->sent;
	uint8_t *data = worker->box->answer + worker->sent;
	size_t size = left < WIRE_CHUNK ? left : WIRE_CHUNK;
	struct wire_header header = { .magic = WIRE_MAGIC, .length = (uint16_t)size,
				      .part = worker->parts, .call = worker->call,
				      .session = worker->session, .flags = left > size ? WIRE_MORE : 0,
				      .kind = (uint8_t)worker->box->kind };

	if (worker->asking)
		return false;
	if (worker->muted) {
		worker->state = IDLE;
		retire(worker);
		return false;
	}
	if (terminal && left > size && worker->parts % WIRE_ASK_EVERY == WIRE_ASK_EVERY - 1) {
		header.flags |= WIRE_ASK;
		worker->asking = true;
	}
	memcpy(data - WIRE_HEADER, &header, sizeof(header));
	output = data - WIRE_HEADER;
	output_left = WIRE_HEADER + size;
	worker->sent += size;
	worker->parts++;
	speaker = worker;
	return true;
}

/* What to send next: answers of the first process, then a frame of each worker in turn. */
static bool choose_output(void)
{
	if (control_length) {
		output = control;
		output_left = control_sending = control_length;
		return true;
	}
	for (unsigned int i = 1; i <= WORKERS; i++) {
		unsigned int index = (last_speaker + i) % WORKERS;

		if (workers[index].state == ANSWERING && next_frame(&workers[index])) {
			last_speaker = index;
			return true;
		}
	}
	return false;
}

static void end_output(void)
{
	struct worker *worker = speaker;

	speaker = NULL;
	if (!worker) {
		control_length -= control_sending;
		memmove(control, control + control_sending, control_length);
		return;
	}
	if (worker->sent == worker->box->answer_length)
		worker->state = IDLE;
	retire(worker);
}

/* Send until there is nothing left or the channel is full. */
static void transmit(void)
{
	while (!away && (output_left || choose_output())) {
		ssize_t sent = write(channel, output, output_left);

		if (sent < 0 && errno == EAGAIN)
			return;
		if (gone(sent)) {
			leave();
			return;
		}
		if (sent > 0) {
			output += sent;
			output_left -= (size_t)sent;
		}
		if (!output_left)
			end_output();
	}
}

#endif
