/* Attempts to leave the sandbox that need a system call of their own. The first argument names the attempt; the
   exit status is 0 where it succeeded, 1 where it was refused, 99 for an unknown name or where its preparation failed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int is(const char *name, const char *wanted) { return strcmp(name, wanted) == 0; }

static int connect_to(const char *path, int abstract) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    memcpy(address.sun_path + abstract, path, length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + abstract + length + !abstract);
}

static long attempt(const char *name, char **arguments) {
    char buffer[256] = {0};
    struct iovec local = {buffer, sizeof buffer}, remote = {(void *)(uintptr_t)0x400000, 64};
    if (is(name, "unshare-user")) return unshare(CLONE_NEWUSER);
    if (is(name, "unshare-mount")) return unshare(CLONE_NEWNS);
    if (is(name, "unshare-time")) return unshare(0x80);
    if (is(name, "clone-user")) {
        long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
        if (child == 0) _exit(0);
        return child;
    }
    if (is(name, "clone3-user")) {
        uint64_t request[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
        long child = syscall(435, request, 64);
        if (child == 0) _exit(0);
        return child;
    }
    if (is(name, "setns")) return setns(open("/proc/self/ns/user", O_RDONLY), 0);
    if (is(name, "mount")) return syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, "");
    if (is(name, "umount")) return syscall(SYS_umount2, "/tmp", 2);
    if (is(name, "open-tree")) return syscall(428, AT_FDCWD, "/", 1);
    if (is(name, "fsopen")) return syscall(430, "tmpfs", 0);
    if (is(name, "mount-setattr")) {
        uint64_t attributes[4] = {0, 1, 0, 0};
        return syscall(442, AT_FDCWD, "/", 0, attributes, sizeof attributes);
    }
    if (is(name, "pivot-root")) return syscall(SYS_pivot_root, ".", ".");
    if (is(name, "chroot")) return chroot("/");
    if (is(name, "bpf")) return syscall(SYS_bpf, 0, buffer, 72);
    if (is(name, "io-uring")) return syscall(425, 4, calloc(1, 256));
    if (is(name, "perf")) return syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0);
    if (is(name, "userfaultfd")) return syscall(SYS_userfaultfd, 1);
    if (is(name, "keyring")) return syscall(SYS_add_key, "user", "qwright", "x", 1, -3);
    if (is(name, "syslog")) return syscall(SYS_syslog, 3, buffer, sizeof buffer);
    if (is(name, "trace-init")) return ptrace(PTRACE_SEIZE, 1, 0, 0);
    if (is(name, "read-init")) return process_vm_readv(1, &local, 1, &remote, 1, 0);
    if (is(name, "init-descriptors")) return open("/proc/1/fd/0", O_RDONLY);
    if (is(name, "type-into-terminal")) {
        /* A terminal of our own: everything up to the injection must work, so that it is what is refused. */
        int terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY);
        if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) exit(99);
        int other = open(ptsname(terminal), O_RDWR);
        if (other < 0) exit(99);
        return ioctl(other, TIOCSTI, "x");
    }
    if (is(name, "type-into-terminal-wide")) return ioctl(0, TIOCSTI | 0x100000000UL, "x") == 0 ? 0 : errno == EPERM ? -1 : 0;
    if (is(name, "netlink-audit")) return socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
    if (is(name, "netlink-netfilter")) return socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (is(name, "packet-socket")) return socket(AF_PACKET, SOCK_RAW, 0);
    if (is(name, "raw-socket")) return socket(AF_INET, SOCK_RAW, 1);
    if (is(name, "vsock")) return socket(40, SOCK_STREAM, 0);
    if (is(name, "alg-socket")) return socket(38, SOCK_SEQPACKET, 0);
    if (is(name, "open-by-handle")) return syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0) == -1 && errno == EPERM ? -1 : 0;
    if (is(name, "block-device")) return mknod("device", S_IFBLK | 0600, (8 << 8) | 0);
    if (is(name, "character-device")) return mknod("device", S_IFCHR | 0600, (1 << 8) | 1);
    if (is(name, "set-user-id")) return open("plain", O_CREAT | O_WRONLY, 0755), chmod("plain", 04755);
    if (is(name, "set-group-id")) return open("plain", O_CREAT | O_WRONLY, 0755), chmod("plain", 02755);
    if (is(name, "set-user-id-at")) return open("plain", O_CREAT | O_WRONLY, 0755), syscall(452, AT_FDCWD, "plain", 04755, 0);
    if (is(name, "create-set-user-id")) return open("special", O_CREAT | O_EXCL | O_WRONLY, 04755);
    if (is(name, "change-owner")) return open("plain", O_CREAT | O_WRONLY, 0755), chown("plain", 12345, 12345);
    if (is(name, "become-other")) return syscall(SYS_setuid, 12345);
    if (is(name, "drop-groups")) return syscall(SYS_setgroups, 0, 0);
    if (is(name, "allow-privileges")) return prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0);
    if (is(name, "set-hostname")) return sethostname("qwright", 7);
    if (is(name, "raise-limit")) {
        uint64_t unlimited[2] = {~0UL, ~0UL};
        return syscall(SYS_prlimit64, 0, 6, unlimited, 0);
    }
    if (is(name, "local-socket")) return connect_to(arguments[0], 0);
    if (is(name, "abstract-socket")) return connect_to(arguments[0], 1);
#ifdef __x86_64__
    if (is(name, "x32")) return syscall(0x40000000 | SYS_unshare, CLONE_NEWUSER);
    if (is(name, "i386")) {
        /* unshare, by its 32-bit number and gate. */
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(310L), "b"((long)CLONE_NEWUSER) : "memory");
        return result < 0 ? -1 : result;
    }
    if (is(name, "iopl")) return syscall(SYS_iopl, 3);
#endif
    exit(99);
}

int main(int count, char **arguments) {
    if (count < 2) return 99;
    return attempt(arguments[1], arguments + 2) >= 0 ? 0 : 1;
}
