/* User-mode Linux keeps a process's floating point registers in a buffer of fixed size; the kernel takes back whole ones only. */
#define _GNU_SOURCE
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char whole[65536] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
    va_list list;
    va_start(list, request);
    long pid = va_arg(list, long), address = va_arg(list, long);
    void *data = va_arg(list, void *);
    va_end(list);
    if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE) {
        struct iovec given = *(struct iovec *)data, all = {whole, sizeof whole};
        if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &all) == 0 && given.iov_len < all.iov_len) {
            memcpy(whole, given.iov_base, given.iov_len);
            return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, address, &all);
        }
    }
    long result;
    int peeks = request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER;
    long word;
    result = syscall(SYS_ptrace, request, pid, address, peeks ? &word : data);
    return peeks && result == 0 ? word : result;
}
