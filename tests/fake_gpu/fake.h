/* What both fake driver libraries share: the state of the machine's devices, kept in files beside the libraries.
 *
 * state           one fact a line: "driver VERSION", "fault NAME NUMBER",
 *                 "device UUID MINOR MIB MIG PENDING NAME", "slice UUID PARENT MIB INSTANCE NAME", "process UUID PID KIND"
 * UUID.memory     the device's memory, which nobody clears
 * UUID.holders    who holds what of it
 */
#ifndef FAKE_H
#define FAKE_H
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICES 32
#define HOLDERS 256
#define MIB ((uint64_t)1 << 20)

struct device {
  char uuid[64], parent[64], name[96];
  unsigned minor, mig, pending, instance;
  uint64_t mib;
};
struct process { char uuid[64], kind; int pid; };
struct holder { int64_t pid; uint64_t offset, size; };
struct machine {
  char folder[512], driver[64];
  struct device devices[DEVICES];
  struct process processes[HOLDERS];
  int count, process_count;
  char text[16384];
};

static struct machine here;

static void read_machine(void) {
  Dl_info info;
  char path[600];
  dladdr((void *)read_machine, &info);
  memset(&here, 0, sizeof here);
  snprintf(path, sizeof path, "%s", info.dli_fname);
  snprintf(here.folder, sizeof here.folder, "%s", dirname(path));
  snprintf(path, sizeof path, "%s/state", here.folder);
  FILE *file = fopen(path, "r");
  if (!file) return;
  size_t length = fread(here.text, 1, sizeof here.text - 1, file);
  fclose(file);
  here.text[length] = 0;
  char copy[sizeof here.text];
  memcpy(copy, here.text, sizeof copy);
  char *rest = NULL;
  for (char *line = strtok_r(copy, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    struct device *device = &here.devices[here.count];
    struct process *process = &here.processes[here.process_count];
    if (sscanf(line, "driver %63s", here.driver) == 1) continue;
    if (sscanf(line, "device %63s %u %lu %u %u %95s", device->uuid, &device->minor, &device->mib, &device->mig,
               &device->pending, device->name) == 6)
      here.count++;
    else if (sscanf(line, "slice %63s %63s %lu %u %95s", device->uuid, device->parent, &device->mib, &device->instance,
                    device->name) == 5)
      here.count++;
    else if (sscanf(line, "process %63s %d %c", process->uuid, &process->pid, &process->kind) == 3)
      here.process_count++;
  }
}

/* Returns a fault's number, or `otherwise` where the state names no such fault. */
static int fault(const char *name, int otherwise) {
  char start[64];
  snprintf(start, sizeof start, "fault %s ", name);
  const char *found = strstr(here.text, start);
  return found ? atoi(found + strlen(start)) : otherwise;
}

static int is_alive(int64_t pid) { return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM); }

/* Opens and locks who holds what of a device; the lock goes with the descriptor. */
static int open_holders(const char *uuid, struct holder *holders) {
  char path[700];
  snprintf(path, sizeof path, "%s/%s.holders", here.folder, uuid);
  int fd = open(path, O_RDWR | O_CREAT, 0666);
  flock(fd, LOCK_EX);
  memset(holders, 0, sizeof(struct holder) * HOLDERS);
  if (pread(fd, holders, sizeof(struct holder) * HOLDERS, 0) < 0) abort();
  for (int i = 0; i < HOLDERS; i++)
    if (!is_alive(holders[i].pid)) memset(&holders[i], 0, sizeof holders[i]);
  return fd;
}

static void close_holders(int fd, const struct holder *holders) {
  if (pwrite(fd, holders, sizeof(struct holder) * HOLDERS, 0) < 0) abort();
  close(fd);
}
#endif
