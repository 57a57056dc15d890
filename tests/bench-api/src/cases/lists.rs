//! Lists of pods, whole or in pages, one after the other from one client.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::contender::NAMESPACE;
use crate::http::{Connection, Endpoint};

const PAGE: usize = 500;
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";
/// A continue token comes before the objects in JSON and in protobuf.
const HEAD_BYTES: usize = 2_048;
/// A pod in a list has more bytes than this; a shorter list lacks some.
const POD_BYTES_MIN: usize = 500;

/// How many pods a second are given out.
pub async fn pods_per_second(
    endpoint: &Endpoint,
    pods: usize,
    protobuf: bool,
    paged: bool,
    lasts: Duration,
) -> Result<f64> {
    let mut connection = endpoint.connect().await?;
    let began = Instant::now();
    let mut lists = 0;
    loop {
        if paged {
            in_pages(endpoint, &mut connection, pods, protobuf).await?;
        } else {
            whole(endpoint, &mut connection, pods, protobuf).await?;
        }
        lists += 1;
        if began.elapsed() >= lasts {
            return Ok((lists * pods) as f64 / began.elapsed().as_secs_f64());
        }
    }
}

/// One whole list.
pub async fn once(endpoint: &Endpoint, pods: usize, protobuf: bool) -> Result<()> {
    whole(endpoint, &mut endpoint.connect().await?, pods, protobuf).await
}

async fn whole(endpoint: &Endpoint, connection: &mut Connection, pods: usize, protobuf: bool) -> Result<()> {
    let request = endpoint.request("GET", &path(""), accept(protobuf), b"");
    let bytes = connection.ask(&request).await?;
    if bytes < pods * POD_BYTES_MIN {
        bail!("a list of {pods} pods had {bytes} bytes only");
    }
    Ok(())
}

async fn in_pages(
    endpoint: &Endpoint,
    connection: &mut Connection,
    pods: usize,
    protobuf: bool,
) -> Result<()> {
    let mut token = None;
    for _ in 0..pods.div_ceil(PAGE) {
        let continued = token.as_ref().map_or(String::new(), |token| format!("&continue={token}"));
        let request =
            endpoint.request("GET", &path(&format!("?limit={PAGE}{continued}")), accept(protobuf), b"");
        let (status, body) = connection.call(&request).await?;
        if status != 200 {
            bail!("a page was answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(400)]));
        }
        token = if protobuf { protobuf_token(&body)? } else { json_token(&body)? };
    }
    match token {
        None => Ok(()),
        Some(_) => bail!("there are more pods than were made"),
    }
}

fn path(query: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods{query}")
}

fn accept(protobuf: bool) -> &'static str {
    if protobuf { PROTOBUF } else { JSON }
}

/// The token in the list's metadata, which may come before the objects or after them.
fn json_token(body: &[u8]) -> Result<Option<String>> {
    const KEY: &[u8] = b"\"continue\":\"";
    let parts = [&body[..body.len().min(HEAD_BYTES)], &body[body.len().saturating_sub(HEAD_BYTES)..]];
    let found = parts.into_iter().find_map(|part| {
        let at = part.windows(KEY.len()).position(|it| it == KEY)? + KEY.len();
        let length = part[at..].iter().position(|byte| *byte == b'"')?;
        Some(&part[at..at + length])
    });
    found.map(|token| Ok(str::from_utf8(token)?.to_owned())).transpose()
}

/// `k8s\0`, `Unknown{raw = 2}`, `List{metadata = 1}`, `ListMeta{continue = 3}`: each first where it is.
fn protobuf_token(body: &[u8]) -> Result<Option<String>> {
    let unknown = body.strip_prefix(b"k8s\0").context("an answer without an envelope")?;
    let list = field(unknown, 2)?.context("an answer without content")?;
    let meta = field(list, 1)?.context("a list without metadata")?;
    field(meta, 3)?
        .filter(|token| !token.is_empty())
        .map(|token| Ok(str::from_utf8(token)?.to_owned()))
        .transpose()
}

/// The first field of the number, which has a length.
fn field(mut message: &[u8], wanted: u64) -> Result<Option<&[u8]>> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                let (content, rest) = message.split_at_checked(length).context("a cut message")?;
                if tag >> 3 == wanted {
                    return Ok(Some(content));
                }
                message = rest;
            }
            other => bail!("a field of type {other}"),
        }
    }
    Ok(None)
}

fn varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().context("a cut message")?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number that does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_forms() {
        let json = br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"abc"},"items":[]}"#;
        assert_eq!(json_token(json).unwrap().as_deref(), Some("abc"));
        assert_eq!(json_token(br#"{"metadata":{},"items":[]}"#).unwrap(), None);
        let list = b"\x0a\x08\x12\x017\x1a\x03abc";
        let mut message = b"k8s\0\x0a\x00\x12".to_vec();
        message.push(u8::try_from(list.len()).unwrap());
        message.extend_from_slice(list);
        assert_eq!(protobuf_token(&message).unwrap().as_deref(), Some("abc"));
    }
}
