//! Links in pages that came through a proxy: an absolute path means one at the proxied server, so it gets the proxy's
//! own path in front. Pages pass through as they come; only the text of a tag is held back until its end.

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, header};

/// A tag longer than this is passed on as it is.
const TAG_BYTES_MAX: usize = 64 * 1024;

/// Attributes that hold a URL, with the elements they are read of.
const URLS: &[(&str, &[&str])] = &[
    ("action", &["form"]),
    ("background", &["body"]),
    ("cite", &["blockquote", "del", "ins", "q"]),
    ("codebase", &["applet", "object"]),
    ("data", &["object"]),
    ("formaction", &["button", "input"]),
    ("href", &["a", "area", "base", "link"]),
    ("icon", &["command"]),
    ("longdesc", &["frame", "iframe", "img"]),
    ("manifest", &["html"]),
    ("poster", &["video"]),
    ("profile", &["head"]),
    ("src", &["audio", "embed", "frame", "iframe", "img", "input", "script", "source", "video"]),
    ("usemap", &["img", "input", "object"]),
];

/// Where a redirect leads, and what a page links to, under `prefix` (`/api/v1/…/proxy`, without a slash at its end).
pub fn through(response: Response<Body>, prefix: &str) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let location = parts.headers.get(header::LOCATION).and_then(|it| it.to_str().ok());
    if let Some(moved) =
        location.and_then(|to| led(to, prefix)).and_then(|to| HeaderValue::from_str(&to).ok())
    {
        parts.headers.insert(header::LOCATION, moved);
    }
    if !is_page(&parts.headers) {
        return Response::from_parts(parts, body);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, rewritten(body.into_data_stream(), prefix.to_owned()))
}

fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") && !headers.contains_key(header::CONTENT_ENCODING)
}

fn rewritten(page: BodyDataStream, prefix: String) -> Body {
    let chunks =
        futures::stream::unfold((page, Vec::new(), prefix), |(mut page, mut held, prefix)| async move {
            loop {
                match page.next().await {
                    Some(Ok(chunk)) => {
                        held.extend_from_slice(&chunk);
                        let rest = held.split_off(end_of_tags(&held));
                        let done = std::mem::replace(&mut held, rest);
                        if !done.is_empty() {
                            return Some((Ok(Bytes::from(rewrite(&done, &prefix))), (page, held, prefix)));
                        }
                    }
                    Some(Err(error)) => return Some((Err(error), (page, held, prefix))),
                    None if held.is_empty() => return None,
                    None => {
                        let rest = std::mem::take(&mut held);
                        return Some((Ok(Bytes::from(rest)), (page, held, prefix)));
                    }
                }
            }
        });
    Body::from_stream(chunks)
}

/// Up to where no tag is cut in two.
fn end_of_tags(page: &[u8]) -> usize {
    match page.iter().rposition(|byte| *byte == b'<') {
        Some(open) if !page[open..].contains(&b'>') && page.len() - open <= TAG_BYTES_MAX => open,
        _ => page.len(),
    }
}

fn rewrite(page: &[u8], prefix: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(open) = rest.iter().position(|byte| *byte == b'<') {
        out.extend_from_slice(&rest[..open]);
        let Some(length) = rest[open..].iter().position(|byte| *byte == b'>') else {
            rest = &rest[open..];
            break;
        };
        out.extend_from_slice(&tag(&rest[open..=open + length], prefix));
        rest = &rest[open + length + 1..];
    }
    out.extend_from_slice(rest);
    out
}

/// One tag, from `<` to `>`.
fn tag(text: &[u8], prefix: &str) -> Vec<u8> {
    let name_end =
        text.iter().skip(1).position(|b| !b.is_ascii_alphanumeric()).map_or(text.len(), |at| at + 1);
    let element = String::from_utf8_lossy(&text[1..name_end]).to_ascii_lowercase();
    let mut out = text[..name_end].to_vec();
    let mut at = name_end;
    while at < text.len() {
        let start = at;
        while at < text.len() && (text[at].is_ascii_alphanumeric() || text[at] == b'-') {
            at += 1;
        }
        let attribute = String::from_utf8_lossy(&text[start..at]).to_ascii_lowercase();
        if at == start || text.get(at) != Some(&b'=') {
            at = at.max(start + 1);
            out.extend_from_slice(&text[start..at]);
            continue;
        }
        at += 1;
        let quote = text.get(at).copied().filter(|b| matches!(b, b'"' | b'\''));
        let value_start = at + usize::from(quote.is_some());
        let is_end = |b: &u8| match quote {
            Some(quote) => *b == quote,
            None => b.is_ascii_whitespace() || *b == b'>',
        };
        let value_end = text[value_start.min(text.len())..]
            .iter()
            .position(is_end)
            .map_or(text.len(), |n| value_start + n);
        out.extend_from_slice(&text[start..value_start.min(text.len())]);
        let value = &text[value_start.min(text.len())..value_end];
        let holds_url = URLS.iter().any(|(name, of)| *name == attribute && of.contains(&&*element));
        match std::str::from_utf8(value).ok().filter(|_| holds_url).and_then(|url| led(url, prefix)) {
            Some(moved) => out.extend_from_slice(moved.as_bytes()),
            None => out.extend_from_slice(value),
        }
        at = value_end;
    }
    out
}

/// Where an absolute path leads through the proxy; `None` for what leads there already, or elsewhere.
fn led(url: &str, prefix: &str) -> Option<String> {
    (url.starts_with('/') && !url.starts_with("//") && !url.starts_with(prefix))
        .then(|| format!("{prefix}{url}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(page: &str) -> String {
        String::from_utf8(rewrite(page.as_bytes(), "/p/proxy")).unwrap()
    }

    #[test]
    fn absolute_paths_lead_through_the_proxy_and_nothing_else_changes() {
        assert_eq!(of(r#"<a href="/x">test</a>"#), r#"<a href="/p/proxy/x">test</a>"#);
        assert_eq!(of("<IMG alt='/a' SRC='/i.png'/>"), "<IMG alt='/a' SRC='/p/proxy/i.png'/>");
        assert_eq!(
            of("<script src=/s.js async>a<b</script>"),
            "<script src=/p/proxy/s.js async>a<b</script>"
        );
        for same in [
            r#"<a href="x">"#,
            r#"<a href="//host/x">"#,
            r#"<a href="http://host/x">"#,
            r#"<a href="/p/proxy/x">"#,
            r#"<p href="/x">"#,
            "a < b > c",
            "<",
            "<a href=",
            "<a href=\"/x",
            "<!-- <> -->",
        ] {
            assert_eq!(of(same), same);
        }
    }

    #[tokio::test]
    async fn a_tag_may_come_in_pieces() {
        let pieces =
            ["<p>x<a hr", "ef=\"/", "y\">z</a", ">"].map(|it| Ok::<_, std::io::Error>(Bytes::from(it)));
        let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/there"));
        let response = through(response, "/p/proxy");
        assert_eq!(response.headers()[header::LOCATION], "/p/proxy/there");
        let page = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(page, "<p>x<a href=\"/p/proxy/y\">z</a>");
    }
}
