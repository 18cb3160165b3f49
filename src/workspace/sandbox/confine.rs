//! What a process gives up before it becomes the command: capabilities, new privileges, and the system calls that
//! reach past namespaces or into rarely used corners of the kernel.
#![allow(unsafe_code)]

use super::init::{Failure, Step};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, sock_filter,
};
use std::collections::BTreeMap;

pub fn no_new_privileges() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).step("refuse new privileges")
}

/// All of them, for good: also root gets none back by running a program.
pub fn drop_capabilities() -> Result<(), Failure> {
    const STEP: &str = "drop capabilities";
    rustix::thread::clear_ambient_capability_set().step(STEP)?;
    let no_root = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(no_root).step(STEP)?;
    for number in 0..64 {
        // By number: the kernel may know capabilities that no library has a name for.
        // SAFETY: takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        if result != 0 {
            // The first number that the kernel does not know.
            break;
        }
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).step(STEP)
}

/// Servers that a test starts listen on the loopback device; a new network namespace has it down.
pub fn raise_loopback() {
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else { return };
    // SAFETY: all-zero is a valid `ifreq`: an array of characters and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives until the call returns. If it fails there is only no
    // loopback, which the command that needs it will say.
    unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request) };
}

/// As [`drop_capabilities`] where there are any: an ordinary user outside a namespace has none.
pub fn drop_capabilities_if_any() -> Result<(), Failure> {
    let sets = rustix::thread::capabilities(None).step("look at its capabilities")?;
    if (sets.effective | sets.permitted | sets.inheritable).is_empty() { Ok(()) } else { drop_capabilities() }
}

/// Which sockets a command may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// Local ones and the internet's: a network of its own holds them.
    Contained,
    /// The internet's, which were approved; none of those by which services of this machine are spoken to.
    Internet,
    None,
}

/// Installs the filters; from here on only the command's own work is possible.
pub fn filter_system_calls(sockets: Sockets) -> Result<(), Failure> {
    let install = |program: &BpfProgram| {
        seccompiler::apply_filter(program).map_err(std::io::Error::other).step("filter system calls")
    };
    let compiled =
        |calls, errno| compile(calls, errno).map_err(std::io::Error::other).step("filter system calls");
    #[cfg(target_arch = "x86_64")]
    install(&refuse_x32())?;
    // The C library falls back to `clone`, whose flags can be looked at: those of `clone3` lie in memory.
    install(&compiled(BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)?)?;
    install(&compiled(refused(sockets)?, libc::EPERM)?)
}

fn compile(
    calls: BTreeMap<libc::c_long, Vec<Rule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(errno as u32);
    SeccompFilter::new(calls, SeccompAction::Allow, errno, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// System calls of the x32 mode are the same calls under other numbers, past every rule below.
#[cfg(target_arch = "x86_64")]
fn refuse_x32() -> BpfProgram {
    const FIRST_X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    vec![
        // The call's number is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: FIRST_X32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ]
}

fn refused(sockets: Sockets) -> Result<BTreeMap<libc::c_long, Vec<Rule>>, Failure> {
    #[rustfmt::skip]
    let always: &[libc::c_long] = &[
        // The file system's shape.
        libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree,
        libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
        libc::SYS_mount_setattr, OPEN_TREE_ATTR, libc::SYS_open_by_handle_at, libc::SYS_fanotify_init,
        libc::SYS_quotactl, libc::SYS_quotactl_fd, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
        // Other namespaces, other processes' descriptors.
        libc::SYS_setns, libc::SYS_pidfd_getfd,
        // Kernel interfaces with a history.
        libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_keyctl, libc::SYS_add_key,
        libc::SYS_request_key, libc::SYS_syslog, libc::SYS_lookup_dcookie,
        // The machine itself.
        libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_kexec_file_load, libc::SYS_init_module,
        libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_settimeofday, libc::SYS_clock_settime,
        libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup,
    ];
    const OPEN_TREE_ATTR: libc::c_long = 467;
    let mut calls: BTreeMap<libc::c_long, Vec<Rule>> = always.iter().map(|call| (*call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    calls.extend([(libc::SYS_iopl, vec![]), (libc::SYS_ioperm, vec![])]);
    let rules = conditional(sockets).map_err(std::io::Error::other).step("filter system calls")?;
    calls.extend(rules);
    Ok(calls)
}

/// System calls that are refused for some arguments.
fn conditional(sockets: Sockets) -> Result<BTreeMap<libc::c_long, Vec<Rule>>, seccompiler::BackendError> {
    let word = |argument, is, value: u64| Condition::new(argument, Width::Dword, is, value);
    let bit = |argument, bit: u64| word(argument, Is::MaskedEq(bit), bit);
    let mut calls: BTreeMap<libc::c_long, Vec<Rule>> = BTreeMap::new();

    #[rustfmt::skip]
    let namespaces = [
        libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWPID, libc::CLONE_NEWNET, libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS, libc::CLONE_NEWCGROUP, CLONE_NEWTIME,
    ];
    const CLONE_NEWTIME: i32 = 0x80;
    for flag in namespaces {
        // `clone` keeps its exit signal in the low byte, where only `unshare` has this flag.
        if flag != CLONE_NEWTIME {
            calls.entry(libc::SYS_clone).or_default().push(Rule::new(vec![bit(0, flag as u64)?])?);
        }
        calls.entry(libc::SYS_unshare).or_default().push(Rule::new(vec![bit(0, flag as u64)?])?);
    }

    // Typing into a terminal, and the console's variant of it.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        calls.entry(libc::SYS_ioctl).or_default().push(Rule::new(vec![word(1, Is::Eq, request)?])?);
    }

    // Sockets: local, internet, and asking which interfaces there are.
    let families: &[i32] = match sockets {
        Sockets::Contained => &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
        Sockets::Internet => &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
        Sockets::None => &[],
    };
    let other =
        families.iter().map(|family| word(0, Is::Ne, *family as u64)).collect::<Result<Vec<_>, _>>()?;
    let netlink =
        vec![word(0, Is::Eq, libc::AF_NETLINK as u64)?, word(2, Is::Ne, libc::NETLINK_ROUTE as u64)?];
    // A rule without conditions is none: where all are refused the call is.
    let rules = if families.is_empty() { vec![] } else { vec![Rule::new(other)?, Rule::new(netlink)?] };
    calls.insert(libc::SYS_socket, rules);
    if sockets != Sockets::Contained {
        // Where the kernel does not keep signals inside, at least not all processes of the user at once.
        let everyone = vec![word(0, Is::Eq, u64::from(u32::MAX))?];
        calls.insert(libc::SYS_kill, vec![Rule::new(everyone)?]);
    }

    // Set-user-id programs: no use inside, but the file would stay behind in the workspace, owned by the user.
    for special in [u64::from(libc::S_ISUID), u64::from(libc::S_ISGID)] {
        let mut modes = vec![
            (libc::SYS_fchmod, vec![bit(1, special)?]),
            (libc::SYS_fchmodat, vec![bit(2, special)?]),
            (libc::SYS_fchmodat2, vec![bit(2, special)?]),
            (libc::SYS_mknodat, vec![bit(2, special)?]),
            (libc::SYS_openat, vec![bit(2, libc::O_CREAT as u64)?, bit(3, special)?]),
            (libc::SYS_openat, vec![bit(2, libc::O_TMPFILE as u64)?, bit(3, special)?]),
        ];
        #[cfg(target_arch = "x86_64")]
        modes.extend([
            (libc::SYS_chmod, vec![bit(1, special)?]),
            (libc::SYS_mknod, vec![bit(1, special)?]),
            (libc::SYS_creat, vec![bit(1, special)?]),
            (libc::SYS_open, vec![bit(1, libc::O_CREAT as u64)?, bit(2, special)?]),
            (libc::SYS_open, vec![bit(1, libc::O_TMPFILE as u64)?, bit(2, special)?]),
        ]);
        for (call, conditions) in modes {
            calls.entry(call).or_default().push(Rule::new(conditions)?);
        }
    }
    Ok(calls)
}
