//! The node's resolver file.
//!
//! It exists to find upstream resolvers without ever finding ourselves. It must not do I/O beyond being handed the
//! file's text.

use std::net::{IpAddr, SocketAddr};

/// Most resolvers used, like the C library.
const SERVERS_MAX: usize = 3;

/// The resolvers named in `text`, without those in `own`: asking ourselves would be a loop.
pub(crate) fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            // A zone id (`fe80::1%eth0`) is left out: the address is useless without it.
            (Some("nameserver"), Some(address)) => address.parse::<IpAddr>().ok(),
            _ => None,
        }
    });
    let others = servers.filter(|address| !own.contains(address) && !address.is_unspecified());
    others.take(SERVERS_MAX).map(|address| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_never_our_own_upstream() {
        let text = "# comment\nsearch x\nnameserver 10.96.0.10\nnameserver 0.0.0.0\nnameserver  9.9.9.9 \nnameserver ::1\n";
        let servers = parse(text, &["10.96.0.10".parse().unwrap()]);
        assert_eq!(servers, ["9.9.9.9:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }

    #[test]
    fn nonsense_names_no_resolver() {
        assert!(parse("nameserver\nnameserver example.com\nnameserverx 1.1.1.1\n\0\n", &[]).is_empty());
    }
}
