//! Addresses that lead to no other host or pod: whoever may write endpoints would reach what listens for a node alone.

use std::net::IpAddr;

/// Why an address may not be an endpoint or an external address, if so; upstream's words (ValidateNonSpecialIP).
pub(crate) fn special_address(ip: IpAddr) -> Option<&'static str> {
    let ip = ip.to_canonical();
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(six) => (six.is_unicast_link_local(), six.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if ip.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

const LEADING_ZEROS: &str = "must not have leading 0s";

/// An address as upstream takes it in fields it had before it was strict: any form, but no leading zeros and no
/// IPv4 in IPv6's clothes.
pub(crate) fn ip(text: &str) -> Option<String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => {
            Some("must not be an IPv4-mapped IPv6 address".into())
        }
        Ok(_) => None,
        Err(_) if without_zeros(text).parse::<IpAddr>().is_ok() => Some(LEADING_ZEROS.into()),
        Err(_) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()),
    }
}

/// An address in its one canonical form.
pub(crate) fn canonical_ip(text: &str) -> Option<String> {
    ip(text).or_else(|| {
        let canonical = text.parse::<IpAddr>().ok()?.to_string();
        (canonical != text).then(|| format!("must be in canonical form (\"{canonical}\")"))
    })
}

/// Address and length of a range, without leading zeros.
pub(crate) fn range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = address.parse::<IpAddr>().ok()?;
    let is_number = length.bytes().all(|c| c.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length = length.parse::<u8>().ok().filter(|_| is_number)?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Whether the range holds the address; families differ as numbers do.
pub(crate) fn contains((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4() && masked(address, length) == masked(network, length)
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((four.to_bits() & mask).into())
        }
        IpAddr::V6(six) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((six.to_bits() & mask).into())
        }
    }
}

/// A range of addresses: nothing set beyond its length, no leading zeros.
pub(crate) fn cidr(text: &str) -> Option<String> {
    match range(text) {
        Some((IpAddr::V6(six), _)) if six.to_ipv4_mapped().is_some() => {
            Some("must not have an IPv4-mapped IPv6 address".into())
        }
        Some((address, length)) => (masked(address, length) != address)
            .then(|| "must not have bits set beyond the prefix length".into()),
        None if range(&without_zeros(text)).is_some() => {
            Some("must not have leading 0s in IP or prefix length".into())
        }
        None => Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()),
    }
}

/// A range in its one canonical form.
pub(crate) fn canonical_cidr(text: &str) -> Option<String> {
    cidr(text).or_else(|| {
        let (address, length) = range(text)?;
        let canonical = format!("{address}/{length}");
        (canonical != text).then(|| format!("must be in canonical form (\"{canonical}\")"))
    })
}

/// The text with every number freed of zeros that mean nothing.
fn without_zeros(text: &str) -> String {
    let freed = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address = address.split('.').map(freed).collect::<Vec<_>>().join(".");
    if length.is_empty() { address } else { format!("{address}/{}", freed(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_are_taken_in_the_forms_upstream_takes() {
        for good in ["10.0.0.1", "0.0.0.0", "2001:db8::1", "2001:DB8:0::1"] {
            assert_eq!(ip(good), None, "{good}");
        }
        for (bad, why) in [
            ("10.0.0.01", LEADING_ZEROS),
            ("::ffff:10.0.0.1", "must not be an IPv4-mapped"),
            ("10.0.0", "must be a valid"),
        ] {
            assert!(ip(bad).is_some_and(|said| said.starts_with(why)), "{bad}: {:?}", ip(bad));
        }
        assert_eq!(
            canonical_ip("2001:DB8::1").as_deref(),
            Some("must be in canonical form (\"2001:db8::1\")")
        );
        for good in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/48", "10.1.2.3/32"] {
            assert_eq!(canonical_cidr(good), None, "{good}");
        }
        for bad in [
            "10.0.0.1/8",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0",
            "10.0.0.0/33",
            "a/8",
            "::ffff:10.0.0.0/104",
        ] {
            assert!(cidr(bad).is_some(), "{bad}");
        }
        assert!(contains(range("10.0.0.0/8").unwrap(), "10.9.9.9".parse().unwrap()));
        assert!(contains(range("0.0.0.0/0").unwrap(), "10.9.9.9".parse().unwrap()));
        assert!(!contains(range("::/0").unwrap(), "10.9.9.9".parse().unwrap()));
    }
}
