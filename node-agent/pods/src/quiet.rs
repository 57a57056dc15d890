//! What a pod has still to do that it was sent: connections that nobody accepted, bytes and datagrams that wait to be read,
//! threads that wait for their turn.
//!
//! It exists because a pod that no node sends anything any more may still have some of it before it, on a machine where
//! processes wait for their turn. Whoever stops it then loses what was delivered. It must not know why a pod ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a pod is given. One that never reads a socket, or always computes, is not waited for longer.
pub const WITHIN: Duration = Duration::from_secs(5);
/// How often is looked. A look walks the kernel's table of connections, some milliseconds.
const PERIOD: Duration = Duration::from_millis(50);
/// The tables of sockets that tell what was not read yet.
const TABLES: [&str; 4] = ["udp", "udp6", "tcp", "tcp6"];

/// What a pod has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// A socket holds something that nobody has taken out of it.
    Unread,
    /// A thread runs, or waits for its turn.
    Runs,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unread => "its sockets hold connections, bytes or datagrams that it has not read",
            Self::Runs => "a thread of it runs or waits for a processor",
        })
    }
}

/// Returns when a moment was seen in which nothing waited in the network namespaces of a pod, and none of its processes
/// wanted a processor. They are asked for at every look, since they come and go. What the pod was busy with is noted.
pub async fn reached(processes: impl Fn() -> Vec<u32> + Clone + Send + 'static, note: impl Fn(Busy)) {
    loop {
        let processes = processes.clone();
        let look = tokio::task::spawn_blocking(move || look(&processes()));
        // A look that panicked says nothing of the pod, which is not to wait for another one like it.
        match look.await.unwrap_or_default() {
            Some(busy) => note(busy),
            None => return,
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn look(pids: &[u32]) -> Option<Busy> {
    let processes: Vec<PathBuf> = pids.iter().map(|pid| Path::new("/proc").join(pid.to_string())).collect();
    // What waits in the node's own sockets is not the pod's to read, though a process of a pod may be there.
    if any_unread_of(&processes, network_of(Path::new("/proc/self"))) {
        return Some(Busy::Unread);
    }
    processes.iter().any(|process| any_runs(process)).then_some(Busy::Runs)
}

/// Whether something waits in a network namespace of these processes, other than this one.
fn any_unread_of(processes: &[PathBuf], except: Option<PathBuf>) -> bool {
    let mut namespaces: BTreeMap<PathBuf, Vec<&Path>> = BTreeMap::new();
    for process in processes {
        // Absent: the process ended.
        if let Some(network) = network_of(process).filter(|network| Some(network) != except.as_ref()) {
            namespaces.entry(network).or_default().push(process);
        }
    }
    // A process may end before its tables are read. Those of another one in the namespace are the same.
    namespaces
        .values()
        .any(|members| members.iter().find_map(|member| unread_in(&member.join("net"))) == Some(true))
}

/// What tells a network namespace from others, as the link `net:[4026531840]`.
fn network_of(process: &Path) -> Option<PathBuf> {
    std::fs::read_link(process.join("ns/net")).ok()
}

/// Whether a thread of a process runs, or would if it had its turn.
fn any_runs(process: &Path) -> bool {
    // Absent: the process ended.
    let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    threads
        .into_iter()
        .any(|thread| std::fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| is_running(&stat)))
}

/// The state in a thread's `stat`, which stands behind its name; a name may have anything in it, parentheses too.
fn is_running(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
}

/// Whether something waits in these tables; none when none can be read, since the process has ended.
fn unread_in(network: &Path) -> Option<bool> {
    // Absent: the family is switched off, or the process ended.
    let tables = TABLES.iter().filter_map(|table| std::fs::read_to_string(network.join(table)).ok());
    tables.map(|text| any_unread(&text)).reduce(|one, other| one || other)
}

/// Whether a socket of a table has something in its receive queue: of a listener that is connections, of another bytes.
/// The table is that of `proc_net_tcp`, whose fifth field is `TRANSMIT:RECEIVE` in hexadecimal.
fn any_unread(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let queues = line.split_whitespace().nth(4).and_then(|field| field.split_once(':'));
        queues.is_some_and(|(_, receive)| receive.bytes().any(|digit| digit != b'0'))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    fn a_thread_s_state_is_behind_its_name_whatever_that_is() {
        assert!(is_running("7 (demo) R 1 7 7"));
        assert!(!is_running("7 (demo) S 1 7 7"));
        assert!(!is_running("7 (a) R (b) S 1 7 7"));
        assert!(!is_running("nonsense"));
    }

    #[test]
    fn who_computes_runs_and_who_waits_does_not() {
        let own = Path::new("/proc/self");
        assert!(any_runs(own), "this test");
        let waits = std::process::Command::new("sleep").arg("600").spawn();
        let mut waits = waits.expect("a process");
        let process = Path::new("/proc").join(waits.id().to_string());
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while any_runs(&process) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let runs = any_runs(&process);
        waits.kill().expect("killed");
        waits.wait().expect("its end");
        assert!(!runs);
    }

    #[test]
    fn only_what_waits_to_be_read_counts() {
        let line = |queues: &str| {
            format!("{HEAD}   0: 0100007F:1F90 00000000:0000 0A {queues} 00:00000000 00000000 0 0 1\n")
        };
        assert!(!any_unread(HEAD));
        assert!(!any_unread(&line("00000000:00000000")));
        assert!(!any_unread(&line("00000005:00000000")), "what it sends is not its to read");
        assert!(any_unread(&line("00000000:00000001")));
        assert!(!any_unread("nonsense\nmore of it\n"));
    }

    /// A process that has ended, and was waited for.
    fn ended() -> PathBuf {
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        child.wait().expect("its end");
        Path::new("/proc").join(child.id().to_string())
    }

    /// Other tests read what they send, at once or never. So the kernel's tables can tell of this one only that it waits.
    #[test]
    fn who_has_ended_hides_nothing_of_the_others_in_its_network() {
        let own = Path::new("/proc/self").to_path_buf();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.send_to(b"?", socket.local_addr().expect("an address")).expect("sent");
        assert!(any_unread_of(&[ended(), own.clone()], None));
        assert_eq!(unread_in(&ended().join("net")), None, "not that nothing waits");
        assert!(!any_unread_of(&[ended()], None));
        assert!(
            !any_unread_of(std::slice::from_ref(&own), network_of(&own)),
            "the node's sockets are not the pod's"
        );
    }

    #[tokio::test]
    async fn a_pod_is_looked_at_anew_until_it_is_quiet_and_what_it_did_is_noted() {
        let sleeps = || std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let (seen, looks) = (parking_lot::Mutex::new(Vec::new()), std::sync::Arc::new(AtomicUsize::new(0)));
        let mut waits = sleeps();
        let (own, other) = (std::process::id(), waits.id());
        // The thread that looks runs while it looks; it leaves the pod before the third look.
        let processes =
            move || if looks.fetch_add(1, Ordering::Relaxed) < 2 { vec![own] } else { vec![other] };
        let reached = reached(processes, |busy| seen.lock().push(busy));
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        waits.kill().expect("killed");
        waits.wait().expect("its end");
        reached.expect("quiet");
        assert!(seen.lock().starts_with(&[Busy::Runs; 2]), "{seen:?}");
    }

    /// The tables are those of the kernel, of which only lines with the test's ports count: other tests have sockets too.
    #[test]
    fn the_kernel_s_tables_tell_of_each_kind_until_it_is_read() {
        let waits = |table: &str, port: u16| {
            let text = std::fs::read_to_string(format!("/proc/self/net/{table}")).expect("a table");
            let own = text.lines().filter(|line| {
                line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}")))
            });
            any_unread(&std::iter::once(HEAD.trim_end()).chain(own).collect::<Vec<_>>().join("\n"))
        };
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let to = socket.local_addr().expect("an address");
        assert!(!waits("udp", to.port()));
        socket.send_to(b"?", to).expect("sent");
        assert!(waits("udp", to.port()));
        socket.recv(&mut [0; 4]).expect("received");
        assert!(!waits("udp", to.port()));

        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let to = listener.local_addr().expect("an address");
        assert!(!waits("tcp", to.port()));
        let mut client = TcpStream::connect(to).expect("connected");
        assert!(waits("tcp", to.port()), "nobody accepted it");
        let (mut served, _) = listener.accept().expect("accepted");
        assert!(!waits("tcp", to.port()));
        client.write_all(b"?").expect("sent");
        assert!(waits("tcp", to.port()));
        served.read_exact(&mut [0]).expect("received");
        assert!(!waits("tcp", to.port()));
    }
}
