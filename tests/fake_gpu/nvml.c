/* A libnvidia-ml.so.1 with the calls that the station makes, over the devices in the file "state" beside it. */
#include "fake.h"

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7 };

typedef struct device *handle;
struct memory { unsigned long long total, free, used; };
struct running { unsigned pid; unsigned long long used; unsigned instance, compute; };

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  read_machine();
  if (fault("nvml-hangs", 0)) pause();
  if (fault("nvml-dies", 0)) kill(getpid(), SIGKILL);
  return fault("nvml", OK);
}
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "a fault"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "%s", here.driver); return OK; }

static int is_slice(handle device) { return device->parent[0] != 0; }

int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = 0;
  for (int i = 0; i < here.count; i++) *count += !is_slice(&here.devices[i]);
  return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *found) {
  for (int i = 0; i < here.count; i++)
    if (!is_slice(&here.devices[i]) && index-- == 0) { *found = &here.devices[i]; return fault("handle", OK); }
  return INVALID;
}
int nvmlDeviceGetUUID(handle device, char *text, unsigned length) { snprintf(text, length, "%s", device->uuid); return OK; }
int nvmlDeviceGetName(handle device, char *text, unsigned length) { snprintf(text, length, "%s", device->name); return OK; }
int nvmlDeviceGetMinorNumber(handle device, unsigned *minor) { *minor = device->minor; return OK; }
int nvmlDeviceGetMigMode(handle device, unsigned *mode, unsigned *pending) {
  if (fault("no-mig", 0)) return UNSUPPORTED;
  *mode = device->mig; *pending = device->pending;
  return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(handle device, unsigned *count) { (void)device; *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle device, unsigned index, handle *found) {
  for (int i = 0; i < here.count; i++)
    if (!strcmp(here.devices[i].parent, device->uuid) && index-- == 0) { *found = &here.devices[i]; return OK; }
  return NOT_FOUND;
}
int nvmlDeviceGetGpuInstanceId(handle device, unsigned *id) { *id = device->instance; return OK; }
int nvmlDeviceGetMemoryInfo(handle device, struct memory *memory) {
  struct holder holders[HOLDERS];
  int fd = open_holders(device->uuid, holders);
  memory->total = device->mib * MIB;
  memory->used = 0;
  for (int i = 0; i < HOLDERS; i++) memory->used += holders[i].size;
  memory->free = memory->total - memory->used;
  close_holders(fd, holders);
  return OK;
}
static int running(handle device, char kind, unsigned *count, struct running *list) {
  struct holder holders[HOLDERS];
  unsigned found = 0, room = *count;
  for (int i = 0; i < here.process_count; i++)
    if (!strcmp(here.processes[i].uuid, device->uuid) && here.processes[i].kind == kind && found++ < room && list)
      list[found - 1].pid = (unsigned)here.processes[i].pid;
  int fd = open_holders(device->uuid, holders);
  for (int i = 0; i < HOLDERS && kind == 'c'; i++)
    if (holders[i].pid && found++ < room && list) list[found - 1].pid = (unsigned)holders[i].pid;
  close_holders(fd, holders);
  *count = found;
  return found > room ? TOO_SMALL : OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle device, unsigned *count, struct running *list) {
  int code = fault("processes", OK);
  return code ? code : running(device, 'c', count, list);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(handle device, unsigned *count, struct running *list) {
  return is_slice(device) ? UNSUPPORTED : running(device, 'g', count, list);
}
