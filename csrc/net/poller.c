/* poller: see poller.h. */
#include "poller.h"

#include <errno.h>

#ifdef __linux__

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

int smtp_poller_open(void)
{
	int poller = epoll_create1(EPOLL_CLOEXEC);
	return poller == -1 ? -errno : poller;
}

int smtp_poller_add_alarm(int poller)
{
	/* an alarm is no watch: ready() is not to tell of it */
	struct epoll_event event = {.events = EPOLLIN, .data.fd = -1};
	int alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (alarm == -1)
		return -errno;
	if (epoll_ctl(poller, EPOLL_CTL_ADD, alarm, &event) == 0)
		return alarm;
	int cause = errno;
	close(alarm);
	return -cause;
}

int smtp_poller_set_alarm(int alarm, double seconds)
{
	/* all zeros would switch it off; what is too far off for the system never comes */
	double wait = seconds > 1e-6 ? seconds : 1e-6;
	wait = wait < 1e9 ? wait : 1e9;
	struct itimerspec when = {.it_value = {.tv_sec = (time_t)wait}};
	when.it_value.tv_nsec = (long)((wait - (double)when.it_value.tv_sec) * 1e9);
	return timerfd_settime(alarm, 0, &when, NULL) == -1 ? -errno : 0;
}

int smtp_poller_watch(int poller, int fd, bool write)
{
	struct epoll_event event = {.events = (write ? EPOLLOUT : EPOLLIN) | EPOLLONESHOT, .data.fd = fd};
	/* nearly always one that was watched before */
	if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event) == 0)
		return 0;
	if (errno == ENOENT && epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0)
		return 0;
	return -errno;
}

void smtp_poller_drop(int poller, int fd)
{
	struct epoll_event unused = {.events = 0};
	(void)epoll_ctl(poller, EPOLL_CTL_DEL, fd, &unused);
}

int smtp_poller_ready(int poller, int *fds, int size)
{
	struct epoll_event events[64];
	int count = epoll_wait(poller, events, size < 64 ? size : 64, 0);
	int ready = 0;
	if (count == -1)
		return -errno;
	for (int i = 0; i < count; i++) {
		if (events[i].data.fd >= 0)
			fds[ready++] = events[i].data.fd;
	}
	return ready;
}

#else

int smtp_poller_open(void)
{
	return -ENOSYS;
}

int smtp_poller_add_alarm(int poller)
{
	(void)poller;
	return -ENOSYS;
}

int smtp_poller_set_alarm(int alarm, double seconds)
{
	(void)alarm;
	(void)seconds;
	return -ENOSYS;
}

int smtp_poller_watch(int poller, int fd, bool write)
{
	(void)poller;
	(void)fd;
	(void)write;
	return -ENOSYS;
}

void smtp_poller_drop(int poller, int fd)
{
	(void)poller;
	(void)fd;
}

int smtp_poller_ready(int poller, int *fds, int size)
{
	(void)poller;
	(void)fds;
	(void)size;
	return -ENOSYS;
}

#endif
