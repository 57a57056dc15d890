//! How far a proxy is, as it tells it itself: ours and kube-proxy have the same name for it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

const METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10_249);
/// When the kernel last had all there was.
const PROGRAMMED_AT: &str = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
/// However many Services there are.
pub const PROGRAM_MAX: Duration = Duration::from_secs(180);

/// Asks the proxy in the calling thread's namespace. In seconds since 1970; zero when the kernel never had all.
pub fn programmed_at() -> Result<f64> {
    let mut stream = TcpStream::connect(METRICS)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    newest(&answer).with_context(|| format!("no {PROGRAMMED_AT}"))
}

/// Of one value for each family, if so: the one that is served.
fn newest(metrics: &str) -> Option<f64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(PROGRAMMED_AT)?;
        rest.rsplit_once(char::is_whitespace)?.1.parse::<f64>().ok()
    });
    values.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_with_labels_and_without() {
        assert_eq!(newest(&format!("# TYPE {PROGRAMMED_AT} gauge\n{PROGRAMMED_AT} 1.5e9\n")), Some(1.5e9));
        let families = format!("{PROGRAMMED_AT}{{f=\"4\"}} 7\n{PROGRAMMED_AT}{{f=\"6\"}} 0\n");
        assert_eq!(newest(&families), Some(7.0));
        assert_eq!(newest("other 1\n"), None);
    }
}
