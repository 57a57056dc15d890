//! Which representation a client gets, and which one it sent.
//!
//! Pure functions of the `Accept` and `Content-Type` headers. Must not know how a representation is produced.

/// How bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    /// JSON, indented for people (`?pretty=true`).
    PrettyJson,
    Yaml,
    Protobuf,
}

/// Which object is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The resource itself.
    Object,
    /// `meta.k8s.io/v1 Table`, the server-side columns of `kubectl get`.
    Table,
    /// `PartialObjectMetadata` of one object (also what each watch event carries).
    Partial,
    /// `PartialObjectMetadataList` of a collection.
    PartialList,
}

/// The outcome of a negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    pub encoding: Encoding,
    pub shape: Shape,
}

/// What a request body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Clauses of an `Accept` header that are looked at; the rest is ignored.
const ACCEPT_CLAUSES_MAX: usize = 32;

/// One `type/subtype;parameters` clause of a header.
#[derive(Debug, PartialEq)]
pub struct MediaRange<'a> {
    pub media: String,
    pub parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

// === impl Encoding ===

impl Encoding {
    /// The `Content-Type` of a whole response.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::PrettyJson => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The `Content-Type` of a watch.
    pub fn stream_content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Self::Json | Self::PrettyJson | Self::Yaml => JSON,
        }
    }
}

// === impl MediaRange ===

impl MediaRange<'_> {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

impl<'a> MediaRange<'a> {
    fn parse(clause: &'a str) -> Option<Self> {
        let mut pieces = clause.split(';').map(str::trim);
        let media = pieces.next()?.to_ascii_lowercase();
        if media.is_empty() {
            return None;
        }
        let mut quality = 1.0;
        let mut parameters = Vec::new();
        for (key, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if key.trim() == "q" {
                quality = value.parse().unwrap_or(0.0);
            } else {
                parameters.push((key.trim(), value));
            }
        }
        Some(Self { media, parameters, quality })
    }
}

/// The clauses of an `Accept` header, most wanted first.
pub fn accepted(header: &str) -> Vec<MediaRange<'_>> {
    let mut ranges: Vec<_> = header
        .split(',')
        .take(ACCEPT_CLAUSES_MAX)
        .filter_map(MediaRange::parse)
        .filter(|r| r.quality > 0.0)
        .collect();
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

/// Chooses a representation for an API object. None when nothing acceptable can be served (406).
pub fn negotiate(accept: Option<&str>, pretty: bool) -> Option<Negotiated> {
    negotiate_among(accept, pretty, |_| true)
}

/// As [`negotiate`], among representations that can be made.
pub fn negotiate_among(
    accept: Option<&str>,
    pretty: bool,
    can_be_made: impl Fn(&Negotiated) -> bool,
) -> Option<Negotiated> {
    let json = if pretty { Encoding::PrettyJson } else { Encoding::Json };
    let header = accept.map(str::trim).filter(|header| !header.is_empty());
    let Some(header) = header else {
        return Some(Negotiated { encoding: json, shape: Shape::Object });
    };
    accepted(header).iter().find_map(|range| {
        let encoding = match range.media.as_str() {
            JSON | "*/*" | "application/*" => json,
            YAML => Encoding::Yaml,
            PROTOBUF => Encoding::Protobuf,
            _ => return None,
        };
        let shape = match range.parameter("as") {
            None => Shape::Object,
            Some(_) if range.parameter("g") != Some("meta.k8s.io") => return None,
            Some(_) if !matches!(range.parameter("v"), Some("v1" | "v1beta1")) => return None,
            // Tables have no protobuf form.
            Some("Table") if encoding != Encoding::Protobuf => Shape::Table,
            Some("PartialObjectMetadata") => Shape::Partial,
            Some("PartialObjectMetadataList") => Shape::PartialList,
            Some(_) => return None,
        };
        Some(Negotiated { encoding, shape }).filter(&can_be_made)
    })
}

/// What a body with this `Content-Type` is. None when it is none of ours (415). An absent header means JSON.
pub fn body_format(content_type: Option<&str>) -> Option<BodyFormat> {
    let Some(header) = content_type.map(str::trim).filter(|header| !header.is_empty()) else {
        return Some(BodyFormat::Json);
    };
    match media_type(header).as_str() {
        JSON => Some(BodyFormat::Json),
        YAML => Some(BodyFormat::Yaml),
        PROTOBUF => Some(BodyFormat::Protobuf),
        _ => None,
    }
}

/// The lower-case `type/subtype` of a header, without parameters.
pub fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether an `Accept-Encoding` header allows gzip.
pub fn accepts_gzip(header: Option<&str>) -> bool {
    header.is_some_and(|header| {
        header
            .split(',')
            .filter_map(MediaRange::parse)
            .any(|range| range.media == "gzip" && range.quality > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(accept: &str) -> String {
        match negotiate(Some(accept), false) {
            Some(Negotiated { encoding, shape }) => format!("{encoding:?} {shape:?}"),
            None => "406".to_owned(),
        }
    }

    #[test]
    fn what_stock_clients_ask_for_is_understood() {
        let table = [
            ("", "Json Object"),
            ("*/*", "Json Object"),
            ("application/json, */*", "Json Object"),
            ("application/vnd.kubernetes.protobuf,application/json", "Protobuf Object"),
            ("application/vnd.kubernetes.protobuf;stream=watch", "Protobuf Object"),
            ("application/yaml", "Yaml Object"),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                "Json Table",
            ),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "Json PartialList"),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                "Protobuf Partial",
            ),
            ("application/json;as=Table;v=v9;g=meta.k8s.io, application/json", "Json Object"),
            ("application/json;as=Pancake;v=v1;g=meta.k8s.io", "406"),
            ("text/html", "406"),
            ("text/html;q=0.9,application/yaml;q=0.8,application/json;q=0.1", "Yaml Object"),
            ("application/json;q=0", "406"),
        ];
        for (accept, want) in table {
            assert_eq!(told(accept), want, "{accept}");
        }
    }

    #[test]
    fn bodies_are_recognised_by_their_type() {
        assert_eq!(body_format(None), Some(BodyFormat::Json));
        assert_eq!(body_format(Some("application/json; charset=utf-8")), Some(BodyFormat::Json));
        assert_eq!(body_format(Some("application/vnd.kubernetes.protobuf")), Some(BodyFormat::Protobuf));
        assert_eq!(body_format(Some("text/plain")), None);
    }

    #[test]
    fn gzip_only_when_asked() {
        assert!(accepts_gzip(Some("deflate, gzip;q=0.5")));
        assert!(!accepts_gzip(Some("gzip;q=0")));
        assert!(!accepts_gzip(None));
    }
}
