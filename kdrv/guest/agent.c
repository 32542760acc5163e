// SPDX-License-Identifier: GPL-2.0
/*
 * kdrv's agent: /init of the guest. The first process only carries messages
 * between the host's channel and the sessions' workers, and answers what must
 * be answered when a driver hangs. It never enters a driver but the channel's,
 * and that without waiting.
 *
 * As an ordinary program (not process 1) it mounts nothing and ends with its
 * channel; kdrv's own tests use it so.
 */
#include "inbox.h"
#include "init.h"

#define AWAY_MS 20 /* how often to look whether the host is back */

static pid_t shell = -1;

static void buried(pid_t pid, int status)
{
	struct worker *worker = workers;

	if (pid == shell && fork() == 0) {
		power_off();
		_exit(0);
	}
	while (worker < workers + WORKERS && (worker->state == FREE || worker->pid != pid))
		worker++;
	if (worker == workers + WORKERS)
		return;
	if ((worker->state == BUSY || worker->state == RECEIVING) && !worker->muted)
		reply(WIRE_DIED, worker->call, worker->session, status, NULL, 0);
	if (worker->state != ANSWERING)
		worker->state = IDLE;
	if (worker == target)
		target = NULL;
	worker->pid = 0;
	retire(worker);
}

static void bury_dead(void)
{
	pid_t pid;
	int status;

	finished(); /* an answer that came before the death counts */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		buried(pid, status);
}

/* Someone is at the channel's other end, perhaps another one than before. */
static void arrive(void)
{
	away = lost = false;
	input_length = payload_left = control_length = output_left = 0;
	target = speaker = NULL;
	for (struct worker *worker = workers; worker < workers + WORKERS; worker++) {
		if (worker->state == BUSY)
			worker->muted = true;
		else if (worker->state != FREE)
			worker->state = IDLE;
		retire(worker);
	}
	greet(0);
}

/* See whether somebody came to the channel's other end. */
static void look_out(void)
{
	struct pollfd fd = { .fd = channel };

	if (poll(&fd, 1, 0) == 0)
		arrive();
}

static void serve(void)
{
	for (;;) {
		bool room = input_length < INPUT && CONTROL - control_length >= CONTROL_MOST;
		struct pollfd fds[] = { { .fd = done[0], .events = POLLIN },
					{ .fd = away ? -1 : channel,
					  .events = (short)((room ? POLLIN : 0) |
							    (output_left ? POLLOUT : 0)) } };
		int ready = wait_for(fds, COUNT(fds), away && channel >= 0 ? AWAY_MS : -1);

		if (ready < 0)
			bury_dead();
		if (ready > 0 && fds[0].revents)
			finished();
		if (away && channel >= 0)
			look_out();
		else if (ready > 0 && (fds[1].revents & (POLLIN | POLLHUP | POLLERR)))
			receive();
		digest();
		transmit();
	}
}

int main(void)
{
	bool first = getpid() == 1;

	if (first)
		mount_places(0, 1);
	on_signal(SIGCHLD, ignore_signal);
	on_signal(SIGPIPE, HANDLER_IGNORE);
	set_signal_mask(SIGNAL_BIT(SIGCHLD));
	if (!hoisted_pipe(done))
		return 1;
	syscall(__NR_fcntl, done[0], F_SETFL, O_NONBLOCK);
	sessions[0].open = true;
	if (first && getenv("kdrv_shell")) {
		mount_places(1, COUNT(places));
		shell = start_shell();
	}
	channel = open_channel();
	if (channel >= 0) {
		terminal = make_raw(channel);
		look_out();
		transmit();
	} else {
		say("kdrv: the agent finds no channel to the host\n");
		if (!first)
			return 1;
		if (shell < 0)
			power_off();
	}
	/* The host is greeted first: what follows is done while it wakes up. */
	if (first && shell < 0)
		mount_places(1, COUNT(places));
	start_worker(0);
	serve();
}
