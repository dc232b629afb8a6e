// A library for LD_PRELOAD that numbers the calls by which SQLite and SoftHSM change
// files, and kills the process before one of them.
//
// fwrite is none of them: what it writes is in memory until the stream is flushed or
// closed. Nor is what SQLite writes to its -shm file, which the next process makes anew.
//
//	KILLER_AT   the number of the call, from 1; unset: none
//	KILLER_LOG  a file to which each call adds a line: its name and its file

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long calls, at;
static int out = -1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void begin(void)
{
	const char *n = getenv("KILLER_AT"), *name = getenv("KILLER_LOG");
	at = n ? atol(n) : 0;
	if (name)
		out = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

// The log is written by system calls, which nothing here comes upon again.
static void step(const char *call, const char *path)
{
	char line[PATH_MAX + 64];
	size_t length = strlen(path);
	int n;

	if (length > 4 && strcmp(path + length - 4, "-shm") == 0)
		return;
	pthread_once(&once, begin);
	n = snprintf(line, sizeof line, "%s %s\n", call, path);
	pthread_mutex_lock(&mutex);
	calls++;
	if (out >= 0)
		syscall(SYS_write, out, line, n);
	if (calls == at) {
		syscall(SYS_kill, getpid(), SIGKILL);
		for (;;)
			pause();
	}
	pthread_mutex_unlock(&mutex);
}

// step_fd leaves out what is no file on a disk: pipes, sockets, terminals.
static void step_fd(const char *call, int fd)
{
	char link[64], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	if (n <= 0 || path[0] != '/' || strncmp(path, "/dev/", 5) == 0)
		return;
	path[n] = 0;
	step(call, path);
}

// step_stream leaves out streams that are only read.
static void step_stream(const char *call, FILE *f)
{
	int flags = f ? fcntl(fileno(f), F_GETFL) : -1;

	if (flags != -1 && (flags & O_ACCMODE) != O_RDONLY)
		step_fd(call, fileno(f));
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ON_FD(type, name, fd, parameters, arguments) \
	type name parameters { step_fd(#name, fd); return NEXT(name) arguments; }
#define ON_STREAM(name) \
	int name(FILE *f) { step_stream(#name, f); return NEXT(name)(f); }
#define ON_PATH(name) \
	int name(const char *path) { step(#name, path); return NEXT(name)(path); }

ON_FD(ssize_t, write, fd, (int fd, const void *b, size_t n), (fd, b, n))
ON_FD(ssize_t, pwrite, fd, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
ON_FD(ssize_t, pwrite64, fd, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
ON_FD(int, ftruncate, fd, (int fd, off_t n), (fd, n))
ON_FD(int, ftruncate64, fd, (int fd, off64_t n), (fd, n))
ON_FD(int, fsync, fd, (int fd), (fd))
ON_FD(int, fdatasync, fd, (int fd), (fd))
ON_STREAM(fflush)
ON_STREAM(fclose)
ON_PATH(unlink)
ON_PATH(remove)
ON_PATH(rmdir)

int rename(const char *from, const char *to)
{
	step("rename", to);
	return NEXT(rename)(from, to);
}

int mkdir(const char *path, mode_t mode)
{
	step("mkdir", path);
	return NEXT(mkdir)(path, mode);
}

// Only what makes a file or empties one counts.
#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list rest; \
		mode_t mode = 0; \
		if (flags & (O_CREAT | O_TRUNC)) \
			step(#name, path); \
		if (flags & O_CREAT) { \
			va_start(rest, flags); \
			mode = va_arg(rest, mode_t); \
			va_end(rest); \
		} \
		return NEXT(name)(path, flags, mode); \
	}

OPEN(open)
OPEN(open64)

#define FOPEN(name) \
	FILE *name(const char *path, const char *mode) \
	{ \
		if (strpbrk(mode, "wa")) \
			step(#name, path); \
		return NEXT(name)(path, mode); \
	}

FOPEN(fopen)
FOPEN(fopen64)
