//! What a pod has still to do that it was sent: connections that nobody accepted, bytes and datagrams that wait to be read,
//! threads that wait for their turn.
//!
//! It exists because a pod that no node sends anything any more may still have some of it before it, on a machine where
//! processes wait for their turn. Whoever stops it then loses what was delivered. It must not know why a pod ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a pod is given. One that never reads a socket, or always computes, is not waited for longer.
const QUIET_WITHIN: Duration = Duration::from_secs(5);
/// How often is looked. A look walks the kernel's table of connections, some milliseconds.
const PERIOD: Duration = Duration::from_millis(50);

/// Returns when a moment was seen in which nothing waited in the network namespace of these processes of a pod, and none of
/// them wanted a processor; or when some time has passed.
pub async fn was_quiet(pids: Vec<u32>) {
    let processes: Vec<PathBuf> = pids.iter().map(|pid| Path::new("/proc").join(pid.to_string())).collect();
    let quiet = async {
        loop {
            let processes = processes.clone();
            let look = tokio::task::spawn_blocking(move || {
                processes.first().is_some_and(|it| any_unread_in(&it.join("net")))
                    || processes.iter().any(|it| any_runs(it))
            });
            if !look.await.unwrap_or(false) {
                return;
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    if tokio::time::timeout(QUIET_WITHIN, quiet).await.is_err() {
        tracing::debug!(?pids, "stopped with something to do");
    }
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

fn any_unread_in(network: &Path) -> bool {
    ["udp", "udp6", "tcp", "tcp6"].iter().any(|table| {
        // Absent: the family is switched off, or the process ended.
        std::fs::read_to_string(network.join(table)).is_ok_and(|text| any_unread(&text))
    })
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
