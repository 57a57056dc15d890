//! What a pod was sent and has not read: connections that nobody accepted, bytes and datagrams that wait.
//!
//! It exists because a pod that no node sends anything any more may still have some of it before it, on a machine where
//! processes wait for their turn. Whoever stops it then loses what was delivered. It must not know why a pod ends.

use std::path::Path;
use std::time::Duration;

/// How long a pod is given to read what it has. One that never reads a socket is not waited for longer.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How often is looked. A look walks the kernel's table of connections, some milliseconds.
const PERIOD: Duration = Duration::from_millis(50);

/// Returns when nothing waits in the network namespace of a process, or some time has passed.
pub async fn all_read(pid: u32) {
    let network = Path::new("/proc").join(pid.to_string()).join("net");
    let read_up = async {
        loop {
            let network = network.clone();
            let look = tokio::task::spawn_blocking(move || any_in(&network));
            if !look.await.unwrap_or(false) {
                return;
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    if tokio::time::timeout(READ_WITHIN, read_up).await.is_err() {
        tracing::debug!(pid, "stopped with something unread");
    }
}

fn any_in(network: &Path) -> bool {
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

    /// The tables are those of the kernel, found by a socket's inode: other tests have sockets too.
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
