/* A test preloads this into the relay. It writes the length of each file that is synced, as a line "SIZE PATH".
   If a file is only appended to, a power cut leaves the bytes of its last sync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int synced(const char *name, int fd) {
  struct stat before;
  char link[64], path[PATH_MAX] = "", line[PATH_MAX + 32];
  fstat(fd, &before);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (readlink(link, path, sizeof path - 1) < 0) path[0] = 0;
  int result = ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
  int log = open(getenv("SYNC_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (result == 0 && log >= 0)
    if (write(log, line, snprintf(line, sizeof line, "%lld %s\n", (long long)before.st_size, path)) < 0) abort();
  if (log >= 0) close(log);
  return result;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
