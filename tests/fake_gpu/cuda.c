/* A libcuda.so.1 with the calls that the station makes, and those of a train: memory that outlives who wrote it. */
#include "fake.h"

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100 };
#define BASE ((uint64_t)0x7f0000000000)

static struct device *visible[DEVICES], *current;
static int visible_count;

int cuInit(unsigned flags) {
  (void)flags;
  read_machine();
  if (fault("cuda-hangs", 0)) pause();
  const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
  for (int i = 0; i < here.count; i++)
    if (!wanted || !strcmp(wanted, here.devices[i].uuid) || fault("all-visible", 0))
      visible[visible_count++] = &here.devices[i];
  int code = fault("cuda", OK);
  return code ? code : visible_count ? OK : NO_DEVICE;
}
int cuDeviceGetCount(int *count) { *count = visible_count; return OK; }
int cuDeviceGet(int *device, int index) { *device = index; return index < visible_count ? OK : INVALID; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  const char *text = strchr(visible[device]->uuid, '-') + 1;
  for (int i = 0; i < 16; i++, text += 2) {
    unsigned byte;
    if (*text == '-') text++;
    if (sscanf(text, "%2x", &byte) != 1) return INVALID;
    uuid[i] = (unsigned char)byte;
  }
  if (fault("other-device", 0)) uuid[0] ^= 1;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  struct holder holders[HOLDERS];
  int fd = open_holders(visible[device]->uuid, holders), i = 0;
  while (i < HOLDERS && holders[i].pid) i++;
  if (i < HOLDERS) holders[i].pid = getpid();
  close_holders(fd, holders);
  *context = visible[device];
  return OK;
}
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuCtxSynchronize(void) { return OK; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  struct holder holders[HOLDERS];
  int fd = open_holders(current->uuid, holders);
  *total = *free_bytes = current->mib * MIB;
  for (int i = 0; i < HOLDERS; i++) *free_bytes -= holders[i].size;
  close_holders(fd, holders);
  return OK;
}
/* First fit; what is handed out is as the one before left it. */
int cuMemAlloc_v2(uint64_t *address, size_t size) {
  struct holder holders[HOLDERS];
  int fd = open_holders(current->uuid, holders), code = OUT_OF_MEMORY;
  uint64_t offset = (uint64_t)fault("lost-mib", 0) * MIB, end = current->mib * MIB;
  for (int i = 0; i < HOLDERS && offset + size <= end;) {
    if (holders[i].size && holders[i].offset < offset + size && offset < holders[i].offset + holders[i].size) {
      offset = holders[i].offset + holders[i].size;
      i = 0;
    } else {
      i++;
    }
  }
  for (int i = 0; i < HOLDERS && offset + size <= end && size; i++)
    if (!holders[i].pid) {
      holders[i] = (struct holder){getpid(), offset, size};
      *address = BASE + offset;
      code = OK;
      break;
    }
  close_holders(fd, holders);
  return code;
}
static int memory(void) {
  char path[700];
  snprintf(path, sizeof path, "%s/%s.memory", here.folder, current->uuid);
  int fd = open(path, O_RDWR | O_CREAT, 0666);
  if (ftruncate(fd, (off_t)(current->mib * MIB))) abort();
  return fd;
}
int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t size) {
  static char block[1 << 20];
  if (fault("memset-lies", 0)) return OK;
  memset(block, value, sizeof block);
  int fd = memory();
  for (uint64_t done = 0; done < size; done += sizeof block) {
    size_t part = size - done < sizeof block ? size - done : sizeof block;
    if (pwrite(fd, block, part, (off_t)(address - BASE + done)) < 0) abort();
  }
  close(fd);
  return OK;
}
int cuMemcpyDtoH_v2(void *to, uint64_t address, size_t size) {
  int fd = memory();
  ssize_t count = pread(fd, to, size, (off_t)(address - BASE));
  close(fd);
  return count == (ssize_t)size ? OK : INVALID;
}
int cuMemcpyHtoD_v2(uint64_t address, const void *from, size_t size) {
  int fd = memory();
  ssize_t count = pwrite(fd, from, size, (off_t)(address - BASE));
  close(fd);
  return count == (ssize_t)size ? OK : INVALID;
}
