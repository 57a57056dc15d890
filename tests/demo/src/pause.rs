//! The process that holds a pod's namespaces: reaps orphans, does nothing else, ends when told.

/// Waits for SIGTERM or SIGINT.
pub fn run() -> Result<(), String> {
    // SAFETY: dispositions are set before any other thread exists; ignoring SIGCHLD makes the kernel reap children
    // (POSIX sigaction, SA_NOCLDWAIT); the handler calls only _exit, which is async-signal-safe.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        for signal in [libc::SIGTERM, libc::SIGINT] {
            libc::signal(signal, end as *const () as libc::sighandler_t);
        }
        loop {
            libc::pause();
        }
    }
}

extern "C" fn end(_: libc::c_int) {
    // SAFETY: _exit takes any status and never returns.
    unsafe { libc::_exit(0) }
}
