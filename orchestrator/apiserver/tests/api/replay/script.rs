//! Reads `requests.txt`: which requests each command makes, in a form of our own.

use serde_json::Value;

/// A command and its requests.
#[derive(Debug)]
pub struct Command {
    pub line: String,
    pub requests: Vec<Line>,
}

/// One request as it was recorded; what changes from run to run is still a `$variable`.
#[derive(Debug, Clone)]
pub struct Line {
    pub method: String,
    pub path: String,
    /// The short names of `requests.txt`.
    pub accept: Option<String>,
    pub content: Option<String>,
    /// Name and value.
    pub headers: Vec<(String, String)>,
    pub body: Option<Body>,
}

#[derive(Debug, Clone)]
pub enum Body {
    Json(String),
    /// What was read last, with a merge patch.
    Object(Value),
}

/// All commands of a script.
pub fn parse(text: &str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push(Command { line: command.to_owned(), requests: Vec::new() }),
            None => commands.last_mut().expect("a command comes first").requests.push(request(line)),
        }
    }
    commands
}

fn request(line: &str) -> Line {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        word.to_owned()
    };
    let mut parsed =
        Line { method: word(), path: word(), accept: None, content: None, headers: Vec::new(), body: None };
    while !rest.is_empty() {
        if let Some(patch) = rest.strip_prefix("$object ") {
            parsed.body = Some(Body::Object(serde_json::from_str(patch).expect(line)));
            break;
        }
        if rest.starts_with(['{', '[']) {
            parsed.body = Some(Body::Json(rest.to_owned()));
            break;
        }
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        let (name, value) = word.split_once('=').expect(line);
        match name {
            "accept" => parsed.accept = Some(value.to_owned()),
            "type" => parsed.content = Some(value.to_owned()),
            _ => parsed.headers.push((name.to_owned(), value.to_owned())),
        }
    }
    parsed
}

/// The media type behind a short name.
pub fn media_type(short: &str) -> &'static str {
    match short {
        "json" => "application/json",
        "pb" => "application/vnd.kubernetes.protobuf",
        "any" => "*/*",
        "apply" => "application/apply-patch+yaml",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        "json-patch" => "application/json-patch+json",
        "table" => {
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
        }
        "discovery" => {
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
             application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
        }
        "openapi" => "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        other => panic!("no such short name: {other}"),
    }
}
