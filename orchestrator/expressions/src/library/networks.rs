//! Addresses and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::no_overload;
use crate::error::EvaluationError;
use crate::evaluate::Evaluated;
use crate::value::{Opaque, Value};

pub(super) fn call<'a>(name: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    let flag = |value: bool| Ok(Value::Bool(value));
    let address = |address: IpAddr| Ok(Value::Opaque(Opaque::Ip(address)));
    match (name, args) {
        ("isIP", [Value::String(text)]) => flag(parse(text).is_ok()),
        ("isCIDR", [Value::String(text)]) => flag(parse_range(text).is_ok()),
        ("ip", [Value::String(text)]) => address(parse(text)?),
        ("ip.isCanonical", [Value::String(text)]) => flag(parse(text)?.to_string() == **text),
        ("cidr", [Value::String(text)]) => {
            let (address, bits) = parse_range(text)?;
            Ok(Value::Opaque(Opaque::Cidr(address, bits)))
        }
        (name, [Value::Opaque(Opaque::Ip(ip))]) => match name {
            "family" => Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
            "isUnspecified" => flag(ip.is_unspecified()),
            "isLoopback" => flag(ip.is_loopback()),
            "isLinkLocalMulticast" => flag(is_link_local_multicast(*ip)),
            "isLinkLocalUnicast" => flag(is_link_local(*ip)),
            "isGlobalUnicast" => flag(is_global(*ip)),
            "string" => Ok(Value::from(ip.to_string())),
            "dyn" => Ok(args[0].clone()),
            "type" => Ok(Value::Type(args[0].type_name().into())),
            _ => Err(no_overload(name, args)),
        },
        (name, [Value::Opaque(Opaque::Cidr(ip, bits)), rest @ ..]) => match (name, rest) {
            ("ip", []) => address(*ip),
            ("prefixLength", []) => Ok(Value::Int(i64::from(*bits))),
            ("masked", []) => Ok(Value::Opaque(Opaque::Cidr(masked(*ip, *bits), *bits))),
            ("string", []) => Ok(Value::from(format!("{ip}/{bits}"))),
            ("containsIP", [Value::Opaque(Opaque::Ip(other))]) => flag(contains(*ip, *bits, *other)),
            ("containsIP", [Value::String(text)]) => flag(contains(*ip, *bits, parse(text)?)),
            ("containsCIDR", [Value::Opaque(Opaque::Cidr(other, more))]) => {
                flag(more >= bits && contains(*ip, *bits, *other))
            }
            ("containsCIDR", [Value::String(text)]) => {
                let (other, more) = parse_range(text)?;
                flag(more >= *bits && contains(*ip, *bits, other))
            }
            _ => Err(no_overload(name, args)),
        },
        _ => Err(no_overload(name, args)),
    }
}

fn parse(text: &str) -> Result<IpAddr, EvaluationError> {
    let refused = |why: &str| {
        EvaluationError::function(format!(
            "IP Address {text:?} parse error during conversion from string: {why}"
        ))
    };
    let address: IpAddr = text.parse().map_err(|_| refused("unable to parse IP"))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(refused("IPv4-mapped IPv6 address is not allowed"))
        }
        other => Ok(other),
    }
}

fn parse_range(text: &str) -> Result<(IpAddr, u8), EvaluationError> {
    let refused = || {
        EvaluationError::function(format!(
            "network address parse error during conversion from string: {text:?}"
        ))
    };
    let (address, bits) = text.split_once('/').ok_or_else(refused)?;
    let address = parse(address)?;
    let canonical = bits == "0" || !bits.starts_with(['0', '+']);
    let bits: u8 = bits.parse().ok().filter(|_| canonical).ok_or_else(refused)?;
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(refused());
    }
    Ok((address, bits))
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

fn contains(range: IpAddr, bits: u8, address: IpAddr) -> bool {
    range.is_ipv4() == address.is_ipv4() && masked(range, bits) == masked(address, bits)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Go's idea of it, private addresses included.
fn is_global(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !broadcast
        && !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && !is_link_local(address)
}
