/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What host and agent say to each other. kdrv/guest/wire.py says the same in
 * Python; a test holds the two together.
 *
 * A message travels as one or more frames, all but the last marked WIRE_MORE.
 * Their parts are numbered, so that a lost one is noticed. A frame is a header
 * and at most WIRE_CHUNK bytes. All numbers are little endian.
 */
#ifndef KDRV_WIRE_H
#define KDRV_WIRE_H

#include <stdint.h>

#define WIRE_VERSION 1
#define WIRE_MAGIC 0x7672646b /* "kdrv" */
#define WIRE_HEADER 16
#define WIRE_CHUNK 32752 /* with its header the most virtio_console writes at once */
#define WIRE_MESSAGE 4259840 /* 4 MiB of data and 64 KiB around them */
#define WIRE_SESSIONS 128

struct wire_header {
	uint32_t magic;
	uint16_t length;
	uint16_t part; /* of its message, from 0 */
	uint32_t call;
	uint16_t session;
	uint8_t kind;
	uint8_t flags;
};

#define WIRE_MORE 1 /* flags: the message goes on in another frame */
#define WIRE_ASK 2 /* flags: it goes on after WIRE_GO: QEMU's consoles drop what is too much */
#define WIRE_ASK_EVERY 2 /* frames, on a terminal */

/* Kinds of messages from the host that the first process answers, itself and at once. */
#define WIRE_PING 1
#define WIRE_GREET 2 /* answered by WIRE_HELLO */
#define WIRE_SPAWN 3 /* a new session; its number is the result */
#define WIRE_CLOSE 4 /* end a session */
#define WIRE_RESET 5 /* give a session a new worker; the old one is killed */
#define WIRE_INTERRUPT 6 /* signal a session's worker: system calls return EINTR */
#define WIRE_INSPECT 7 /* what a session's worker is doing */
#define WIRE_GO 8 /* no request: go on with the answer to this call */

/* Kinds that a session's worker carries out. */
#define WIRE_CALL 16 /* system calls, one after the other */
#define WIRE_PEEK 17 /* read the worker's memory in units of a width */
#define WIRE_POKE 18 /* write it */
#define WIRE_RUN 19 /* run a program */

/* Kinds from the agent. */
#define WIRE_ANSWER 128 /* int64 result, then what the request asks for */
#define WIRE_REFUSED 129 /* int64 -errno: the request was not carried out */
#define WIRE_DIED 130 /* int64 wait status of the worker that had the request */
#define WIRE_HELLO 131

/* Arguments of a system call. */
#define WIRE_VALUE 0 /* uint64 */
#define WIRE_IN 1 /* uint64 length, bytes: a pointer to them */
#define WIRE_OUT 2 /* uint64 size: a pointer to that much room, returned whole */
#define WIRE_FILL 3 /* the same; as many bytes are returned as the result says */
#define WIRE_INOUT 4 /* uint64 length, bytes: a pointer to them, returned afterwards */
#define WIRE_RESULT 5 /* uint64 index: the result of an earlier system call */

/* Flags of a system call. */
#define WIRE_ALWAYS 1 /* even after an earlier one failed */
#define WIRE_FULLY 2 /* (fd, buffer, count): repeat until count, end or error */

/* Flags of a program's end. */
#define WIRE_TIMED_OUT 1
#define WIRE_TRUNCATED 2

#endif
