/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What comes from the host: frames, put together into requests in the workers'
 * mailboxes. Bytes that are no frame are skipped up to the next one.
 */
#ifndef KDRV_INBOX_H
#define KDRV_INBOX_H

#include "requests.h"

#define INPUT 65536

static uint8_t input[INPUT];
static size_t input_length;
static size_t payload_left; /* of the frame that is being received */
static struct wire_header frame;
static bool lost; /* looking for the next frame in what is none */

static bool for_worker(uint8_t kind)
{
	return kind >= WIRE_CALL && kind <= WIRE_RUN;
}

/*
 * The worker that takes this frame of a request. When none does, the first
 * frame is refused and the rest of the request is dropped.
 */
static struct worker *admit(void)
{
	struct worker *worker;
	uint16_t number = frame.session;

	if (number >= WIRE_SESSIONS || !sessions[number].open) {
		refuse(&frame, ESRCH);
		return NULL;
	}
	worker = sessions[number].worker;
	if (frame.part) {
		if (!worker || worker->state != RECEIVING || worker->call != frame.call)
			return NULL;
	} else {
		if (!worker)
			worker = start_worker(number);
		if (!worker || worker->state == BUSY || worker->state == ANSWERING) {
			refuse(&frame, worker ? EBUSY : EAGAIN);
			return NULL;
		}
		worker->state = RECEIVING;
		worker->call = frame.call;
		worker->received = worker->parts = 0;
		worker->box->kind = frame.kind;
	}
	if (frame.part != worker->parts++ || worker->received + frame.length > WIRE_MESSAGE) {
		worker->state = IDLE;
		refuse(&frame, frame.part < worker->parts ? EMSGSIZE : EBADMSG);
		return NULL;
	}
	return worker;
}

static void begin_frame(void)
{
	payload_left = frame.length;
	target = for_worker(frame.kind) ? admit() : NULL;
}

static void end_frame(void)
{
	if (!for_worker(frame.kind)) {
		answer(&frame);
	} else if (target && !(frame.flags & WIRE_MORE)) {
		target->box->length = (uint32_t)target->received;
		target->box->step = 0;
		target->state = BUSY;
		while (write(target->bell[1], "", 1) < 0 && errno == EINTR)
			;
	}
}

static void took(size_t size)
{
	if (target)
		target->received += size;
	payload_left -= size;
	if (!payload_left)
		end_frame();
}

/* Work through the input, as long as answers find room. */
static void digest(void)
{
	size_t at = 0;

	while (CONTROL - control_length >= CONTROL_MOST) {
		size_t have = input_length - at;

		if (payload_left) {
			size_t part = have < payload_left ? have : payload_left;

			if (!part)
				break;
			if (target)
				memcpy(target->box->request + target->received, input + at, part);
			at += part;
			took(part);
			continue;
		}
		if (have < WIRE_HEADER)
			break;
		memcpy(&frame, input + at, WIRE_HEADER);
		if (frame.magic != WIRE_MAGIC || frame.length > WIRE_CHUNK) {
			if (!lost)
				reply(WIRE_REFUSED, 0, 0, -EBADMSG, NULL, 0);
			lost = true;
			at++;
			continue;
		}
		lost = false;
		at += WIRE_HEADER;
		begin_frame();
		if (!payload_left)
			end_frame();
	}
	input_length -= at;
	memmove(input, input + at, input_length);
}

static void receive(void)
{
	ssize_t got;

	if (target && payload_left && !input_length) {
		got = read(channel, target->box->request + target->received, payload_left);
		if (got > 0)
			took((size_t)got);
	} else {
		got = read(channel, input + input_length, INPUT - input_length);
		if (got > 0)
			input_length += (size_t)got;
	}
	if (gone(got))
		leave();
}

#endif
