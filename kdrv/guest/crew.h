/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The workers and whose they are. A session keeps its number when it gets
 * another worker; a worker that was killed stays in the table until it is dead.
 */
#ifndef KDRV_CREW_H
#define KDRV_CREW_H

#include "sys.h"
#include "wire.h"
#include "worker.h"

#define WORKERS (WIRE_SESSIONS + 64) /* killed ones may take their time */

enum state { FREE, IDLE, RECEIVING, BUSY, ANSWERING };

static struct worker {
	enum state state;
	pid_t pid; /* 0: dead, its last answer is still being sent */
	uint16_t session;
	bool attached; /* still its session's worker */
	bool muted; /* nobody waits for the answer any more */
	bool asking; /* the answer goes on when the host says so */
	uint32_t call;
	size_t received, sent;
	uint16_t parts; /* received or sent */
	int bell[2];
	struct mailbox *box;
} workers[WORKERS];

static struct {
	bool open;
	struct worker *worker; /* NULL: made when the next request comes */
} sessions[WIRE_SESSIONS];

static int done[2]; /* workers write their index here */
static struct worker *target; /* whose request is being received; NULL: nobody's */
static struct worker *speaker; /* whose answer is being sent; NULL: nobody's */

static void free_worker(struct worker *worker)
{
	if (worker->attached)
		sessions[worker->session].worker = NULL;
	munmap(worker->box, sizeof(*worker->box));
	close(worker->bell[0]);
	close(worker->bell[1]);
	memset(worker, 0, sizeof(*worker));
}

static struct worker *start_worker(uint16_t session)
{
	struct worker *worker = workers;
	pid_t parent;

	while (worker < workers + WORKERS && worker->state != FREE)
		worker++;
	if (worker == workers + WORKERS)
		return NULL;
	worker->box = mmap(NULL, sizeof(*worker->box), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (worker->box == MAP_FAILED)
		return NULL;
	if (!hoisted_pipe(worker->bell)) {
		munmap(worker->box, sizeof(*worker->box));
		return NULL;
	}
	parent = getpid();
	worker->pid = (pid_t)syscall(__NR_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (worker->pid == 0)
		work(worker->box, parent, worker->bell[0], done[1],
		     (uint16_t)(worker - workers));
	worker->session = session;
	worker->state = IDLE;
	if (worker->pid < 0) {
		free_worker(worker);
		return NULL;
	}
	worker->attached = true;
	sessions[session].worker = worker;
	return worker;
}

/* Kill a session's worker. One that hangs in the kernel stays until it can die. */
static void drop_worker(uint16_t session)
{
	struct worker *worker = sessions[session].worker;

	if (!worker)
		return;
	kill(worker->pid, SIGKILL);
	worker->attached = worker->asking = false;
	worker->muted = true;
	sessions[session].worker = NULL;
}

/* Free a dead worker, unless its last answer is still being sent. */
static void retire(struct worker *worker)
{
	if (worker->state != FREE && worker->pid == 0 && worker->state != ANSWERING &&
	    worker != speaker)
		free_worker(worker);
}

static void finished(void)
{
	uint16_t index;

	while (read(done[0], &index, sizeof(index)) == sizeof(index)) {
		struct worker *worker = &workers[index];

		if (worker->state != BUSY)
			continue;
		worker->state = worker->muted ? IDLE : ANSWERING;
		worker->muted = !worker->attached;
		worker->sent = worker->parts = 0;
		worker->asking = false;
	}
}

#endif
