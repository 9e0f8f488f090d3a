//! The only module with `unsafe`: starts a child with what must happen between fork and exec, and waits for any child.

#![expect(unsafe_code, reason = "raw calls that no safe wrapper offers; each says why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, getpid, getppid};
use sqlflow_os::run_as::RunAs;
use tokio::io::unix::AsyncFd;

/// Descriptor of the submitter channel in the child.
pub const CHANNEL_FD: RawFd = 3;
/// Descriptor of the socket between command and companion in both.
pub const COMPANION_FD: RawFd = 4;
/// The child's descriptors are above this until they get their final numbers, so that none overwrites another.
const PARKED_FD: RawFd = 10;

/// Signal settings at the start of this process, which its command inherits.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    /// Blocked signals.
    pub blocked: SigSet,
    /// Ignored signals.
    pub ignored: SigSet,
}

/// Signals whose settings the agent and the standard library change, and which must be restored for the command.
const CHANGED: [Signal; 2] = [Signal::SIGCHLD, Signal::SIGPIPE];

/// A program to execute: candidate paths in order, arguments and environment.
#[derive(Debug)]
pub struct Executable {
    paths: Vec<CString>,
    arguments: Pointers,
    environment: Pointers,
}

/// C strings, and a null-terminated list of pointers to them.
#[derive(Debug)]
struct Pointers {
    _texts: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers are to heap memory of the strings beside them, which is never changed and does not move with them.
unsafe impl Send for Pointers {}
// SAFETY: as above.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|it| it.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _texts: texts, pointers }
    }
}

impl Executable {
    /// `environment` has entries `NAME=VALUE`.
    pub fn new(paths: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        Self { paths, arguments: Pointers::new(arguments), environment: Pointers::new(environment) }
    }

    /// Like `execvp`, but without its fallback to a shell for files that are not programs. Returns only if it fails.
    /// Async-signal-safe.
    fn exec(&self) -> io::Error {
        let mut found = Errno::ENOENT;
        for path in &self.paths {
            // SAFETY: all are null-terminated strings and null-terminated lists of them, which outlive this call.
            unsafe {
                libc::execve(
                    path.as_ptr(),
                    self.arguments.pointers.as_ptr(),
                    self.environment.pointers.as_ptr(),
                );
            }
            match Errno::last() {
                Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
                Errno::EACCES => found = Errno::EACCES,
                other => return other.into(),
            }
        }
        found.into()
    }
}

/// Descriptors for a child.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// For [`CHANNEL_FD`].
    pub channel: Option<OwnedFd>,
    /// For [`COMPANION_FD`].
    pub companion: Option<OwnedFd>,
    /// Rules of Landlock, which the child obeys from then on, and does not get.
    pub rules: Option<OwnedFd>,
    /// The file by which it enters a cgroup, which it does not get.
    pub group: Option<OwnedFd>,
}

/// Starts `executable` in a process group of its own, with `descriptors`, so that the kernel kills it when the calling
/// *thread* ends. Call it on a thread that lives as long as the agent: the main one. Its group is put into the
/// foreground of `terminal`. It gets the signal settings of `inherited`, and working folder and streams of `command`. It
/// is executed as `user`, or as the agent's own.
///
/// # Errors
/// Those of fork and exec.
pub fn spawn(
    command: &mut Command,
    executable: Executable,
    descriptors: Descriptors,
    user: Option<RunAs>,
    inherited: Inherited,
    terminal: Option<RawFd>,
) -> io::Result<Child> {
    let reserved = [reserve(CHANNEL_FD)?, reserve(COMPANION_FD)?];
    let agent = getpid();
    let mut parked = Vec::new();
    for (descriptor, target) in [(descriptors.channel, CHANNEL_FD), (descriptors.companion, COMPANION_FD)] {
        if let Some(descriptor) = descriptor {
            parked.push((park(&descriptor)?, target));
        }
    }
    // Otherwise it could have one of the child's numbers.
    let rules = descriptors.rules.as_ref().map(park).transpose()?;
    let rules_fd = rules.as_ref().map(AsRawFd::as_raw_fd);
    let group = descriptors.group.as_ref().map(park).transpose()?;
    let group_fd = group.as_ref().map(AsRawFd::as_raw_fd);
    let moves: Vec<_> = parked.iter().map(|(descriptor, target)| (descriptor.as_raw_fd(), *target)).collect();
    command.process_group(0);
    // SAFETY: the closure runs in the forked child and calls only async-signal-safe functions (prctl, getppid, dup2,
    // signal, sigprocmask, tcsetpgrp, write, landlock_restrict_self, setgroups, setresgid, setresuid, execve); it
    // allocates nothing and takes no lock.
    // `parked`, `rules` and `group` outlive the call of `spawn` below.
    unsafe {
        command.pre_exec(move || {
            die_with(agent)?;
            if let Some(group) = group_fd {
                // Where the kernel refuses it, the program is killed as those without a group.
                libc::write(group, ENTER_GROUP.as_ptr().cast(), ENTER_GROUP.len());
            }
            if let Some(terminal) = terminal {
                take_terminal(terminal, libc::getpid());
            }
            for changed in CHANGED {
                if inherited.ignored.contains(changed) {
                    signal(changed, SigHandler::SigIgn)?;
                }
            }
            inherited.blocked.thread_set_mask()?;
            for (descriptor, target) in &moves {
                check(libc::dup2(*descriptor, *target))?;
            }
            if let Some(rules) = rules_fd {
                confine(rules)?;
            }
            if let Some(user) = user {
                // All that needs rights of the agent is done.
                become_user(user)?;
                // The kernel forgets it with the user.
                die_with(agent)?;
            }
            // Not by the standard library, which lets the C library fall back to a shell for files that are not
            // programs.
            Err(executable.exec())
        });
    }
    let child = command.spawn();
    drop((parked, rules, group, reserved));
    child
}

/// Lets the kernel kill the calling process with the agent, its parent. Async-signal-safe.
fn die_with(agent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != agent {
        // The agent died before that, so nobody would send the signal.
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

/// Makes the calling process, which has one thread, one of this user for good: without other groups, capabilities, and
/// setuid programs. Async-signal-safe.
fn become_user(user: RunAs) -> io::Result<()> {
    let RunAs { uid, gid } = user;
    prctl::set_no_new_privs()?;
    // SAFETY: they only read their arguments, and an empty list of groups is read from nowhere. They are the system calls
    // themselves: the functions of the C library concern all threads of a process.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// What a process writes to `cgroup.procs` to enter a cgroup.
const ENTER_GROUP: &[u8] = b"0";

/// Capabilities with which a process of root gets around Landlock: they read the memory of any process, or run code in
/// the kernel. In the order of `linux/capability.h`: SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, PERFMON, BPF.
const STRONG_CAPABILITIES: [libc::c_ulong; 6] = [16, 17, 19, 21, 38, 39];

/// Restricts the calling process, which has one thread, for good. Async-signal-safe.
fn confine(rules: RawFd) -> io::Result<()> {
    for capability in STRONG_CAPABILITIES {
        // SAFETY: it only reads its arguments. It fails for a user who has none, and for those that the kernel does not
        // know.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    prctl::set_no_new_privs()?;
    // SAFETY: it only reads its arguments, and checks the descriptor.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) })?;
    Ok(())
}

/// Makes the kernel report how children end. A process may be started with CHLD ignored; then its children vanish
/// without an exit status.
///
/// # Errors
/// Those of `sigaction`.
pub fn enable_sigchld() -> nix::Result<()> {
    // SAFETY: no handler is installed, so no code runs at the arrival of a signal.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}

/// Signals that were ignored when this process was started. Call it before any of them is changed.
pub fn ignored_at_start() -> SigSet {
    let mut ignored: SigSet = Signal::iterator().filter(|it| is_ignored(*it)).collect();
    if !PIPE_WAS_IGNORED.load(Ordering::Relaxed) {
        ignored.remove(Signal::SIGPIPE);
    }
    ignored
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: `sigaction` is a C struct for which zero is valid. Without a new action the call only writes the present one,
    // to which the pointer is valid.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        let result = libc::sigaction(signal as libc::c_int, std::ptr::null(), &mut action);
        result == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Whether this signal is blocked and has arrived.
pub fn is_pending(signal: Signal) -> bool {
    // SAFETY: `sigset_t` is plain data for which zero is valid; sigpending writes one, to which the pointer is valid, and
    // sigismember only reads it.
    unsafe {
        let mut pending = std::mem::zeroed::<libc::sigset_t>();
        libc::sigpending(&mut pending) == 0 && libc::sigismember(&pending, signal as libc::c_int) == 1
    }
}

static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// The standard library ignores PIPE before it calls `main`. Functions in this section run before that.
// SAFETY: the C library calls each pointer in the section once, on the only thread. The function makes one system call and
// stores a byte, and needs nothing that the standard library has not initialized yet.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_PIPE: extern "C" fn() = look_at_pipe;

extern "C" fn look_at_pipe() {
    PIPE_WAS_IGNORED.store(is_ignored(Signal::SIGPIPE), Ordering::Relaxed);
}

/// Puts a process group into the foreground of a terminal. Async-signal-safe.
fn take_terminal(terminal: RawFd, group: libc::pid_t) {
    // SAFETY: `sigset_t` is plain data that sigemptyset fills; all pointers are to locals that live through the calls.
    unsafe {
        // A process in the background that does this is stopped by TTOU, unless that is blocked.
        let mut stop = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut stop);
        libc::sigaddset(&mut stop, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &stop, &mut before);
        libc::tcsetpgrp(terminal, group);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
    }
}

/// Replaces the stack unwinder in the released program (the Makefile's `--wrap`), which has no unwind tables: with
/// `RUST_BACKTRACE=1` the first error would abort it. Returns `_URC_END_OF_STACK`.
// SAFETY: nothing else has this name, which the linker derives.
#[unsafe(no_mangle)]
extern "C" fn __wrap__Unwind_Backtrace(_frame: *const libc::c_void, _data: *mut libc::c_void) -> libc::c_int {
    5
}

/// Watches a descriptor that its owner closes with itself.
///
/// # Errors
/// It cannot be watched.
pub fn watch(signals: SignalFd) -> io::Result<AsyncFd<SignalFd>> {
    // SAFETY: a `SignalFd` owns its descriptor, gives always the same one, and closes it when it is dropped, which
    // `AsyncFd` lets happen only after it has stopped watching.
    unsafe { AsyncFd::register(signals) }.map_err(io::Error::from)
}

/// Moves a descriptor out of the way of the child's numbers.
fn park(descriptor: &OwnedFd) -> io::Result<OwnedFd> {
    let parked = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(PARKED_FD))?;
    // SAFETY: the number is that of a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(parked) })
}

/// Reserves the number of a descriptor of the child, so that the exec-error pipe of the standard library cannot get it.
fn reserve(fd: RawFd) -> io::Result<Option<std::fs::File>> {
    // SAFETY: F_GETFD has no effect on any number.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
        return Ok(None);
    }
    // The lowest free number; those below it are the standard streams.
    std::fs::File::open("/dev/null").map(Some)
}

/// A child that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The status as `wait(2)` gives it.
    pub status: libc::c_int,
    /// Peak of the resident memory of it or of one of its reaped children, in bytes.
    pub memory_peak: u64,
}

/// Finds a child that has ended, and leaves it a zombie, so that its name can be read. `None`: none has ended.
///
/// # Errors
/// `ECHILD`: there is no child at all.
pub fn ended_child() -> nix::Result<Option<Pid>> {
    // SAFETY: `siginfo_t` is a C struct of integers, for which zero is valid; waitid writes one, to which the pointer
    // is valid.
    let pid = unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        Errno::result(libc::waitid(libc::P_ALL, 0, &mut info, flags))?;
        info.si_pid()
    };
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Takes the exit status of a child that has ended. nix's own `waitpid` loses the status of a process that a real-time
/// signal killed.
///
/// # Errors
/// `ECHILD`: there is no such child.
pub fn reap(pid: Pid) -> nix::Result<Ended> {
    let mut status = 0;
    // SAFETY: `rusage` is a C struct of integers, for which zero is valid; wait4 writes it and one int, to which the
    // pointers are valid.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        Errno::result(libc::wait4(pid.as_raw(), &mut status, 0, &mut usage))?;
        usage
    };
    Ok(Ended { status, memory_peak: usage.ru_maxrss.unsigned_abs() * 1024 })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
