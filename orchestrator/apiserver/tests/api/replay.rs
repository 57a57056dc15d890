//! Every request that kubectl makes, replayed: each answer is checked by schema, and told in a snapshot.
//!
//! `requests.txt` is the script, the snapshot beside it what is answered: code, content type and kind; of Tables the
//! columns, of failures reason and message. `INSTA_UPDATE=always` writes it anew.

#[path = "replay/checks.rs"]
pub mod checks;
#[path = "replay/exchange.rs"]
pub mod exchange;
#[path = "replay/script.rs"]
mod script;
#[path = "replay/stage.rs"]
mod stage;

use std::fmt::Write;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use penstock_apiserver::User;
use penstock_schema::{Schema, protobuf};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Identity};
use checks::Documents;
use exchange::Answer;
use script::{Body, Line};

const REQUESTS: &str = include_str!("replay/requests.txt");

/// What later requests take from earlier answers.
#[derive(Default)]
struct Seen {
    resource_version: String,
    uid: String,
    object: Value,
}

struct Replay {
    cluster: Cluster,
    admin: Identity,
    documents: Documents,
    seen: Seen,
}

// === impl Replay ===

impl Replay {
    /// Sends a line and says what came of it.
    async fn replay(&mut self, line: &Line) -> anyhow::Result<String> {
        let path = self.filled(&line.path, line);
        let request = self.request(line, &path)?;
        let watches = path.contains("watch=true");
        if watches {
            self.touch(&path).await?;
        }
        let response = exchange::send(&self.cluster, &self.admin, request).await?;
        let answer = if watches && response.status().is_success() {
            exchange::first_event(response).await?
        } else {
            exchange::whole(response).await?
        };
        self.told(line, &path, &answer, watches)
    }

    fn filled(&self, text: &str, line: &Line) -> String {
        let document = line.path.split('?').next().unwrap_or_default().trim_start_matches("/openapi/v3/");
        let hash = self.documents.hashes.get(document).map(String::as_str).unwrap_or_default();
        text.replace("$rv", &self.seen.resource_version)
            .replace("$uid", &self.seen.uid)
            .replace("$hash", hash)
    }

    fn request(&self, line: &Line, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(line.method.as_str()).uri(path).header("host", "test");
        if let Some(accept) = &line.accept {
            let types: Vec<&str> = accept.split(',').map(script::media_type).collect();
            request = request.header("accept", types.join(","));
        }
        for (name, value) in &line.headers {
            request = request.header(name, value);
            if name == "upgrade" {
                request = request.header("connection", "Upgrade");
            }
            if value == "websocket" {
                request = request.header("sec-websocket-version", "13");
                request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
            }
        }
        let body = match &line.body {
            None => return Ok(request.body(Full::default())?),
            Some(Body::Json(text)) => self.filled(text, line),
            Some(Body::Object(patch)) => penstock_schema::patch::merge(&self.seen.object, patch).to_string(),
        };
        let content = line.content.as_deref().context("a body has a type")?;
        request = request.header("content-type", script::media_type(content));
        let body = if content == "pb" { sealed(&body)? } else { body.into_bytes() };
        Ok(request.body(Full::from(body))?)
    }

    /// Changes what a watch follows, so that there is something to be told.
    async fn touch(&self, path: &str) -> anyhow::Result<()> {
        let collection = path.split('?').next().unwrap_or_default();
        let name = if collection.ends_with("deployments") { "web" } else { "web-1" };
        let touched = json!({"metadata": {"annotations": {"touched": uuid::Uuid::new_v4().to_string()}}});
        let request = Request::patch(format!("{collection}/{name}"))
            .header("content-type", "application/merge-patch+json")
            .body(touched.to_string().into_bytes())?;
        self.cluster.server.client(User::system("test")).request::<Value>(request).await?;
        Ok(())
    }

    fn told(&mut self, line: &Line, path: &str, answer: &Answer, watches: bool) -> anyhow::Result<String> {
        let code = answer.status.as_u16();
        let content = answer.header("content-type").to_owned();
        let mut told = format!("{code} {content}");
        ensure!(!answer.header("audit-id").is_empty(), "no Audit-Id");
        if code == 101 {
            let header = |name: &str| answer.header(name).to_owned();
            let _ = write!(told, "upgrade {}", header("upgrade"));
            for name in ["sec-websocket-protocol", "x-stream-protocol-version"] {
                if !header(name).is_empty() {
                    let _ = write!(told, " {name} {}", header(name));
                }
            }
            return Ok(told);
        }
        if code == 204 {
            return Ok("204".to_owned());
        }
        if content.starts_with("text/plain") {
            let _ = write!(told, " {:?}", String::from_utf8_lossy(&answer.body));
            return Ok(told);
        }
        if content.contains("proto-openapi") {
            ensure!(answer.body.len() > 100_000, "too short a document");
            return Ok(told);
        }
        let mut object = checks::object(&content, &answer.body)?;
        if watches {
            let _ = write!(told, " {}", object["type"].as_str().unwrap_or_default());
            object = object["object"].take();
        }
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if !kind.is_empty() {
            let _ = write!(told, " {kind}");
        }
        match kind.as_str() {
            "Table" => {
                checks::check_table(&object, true)?;
                let columns = object["columnDefinitions"].as_array().context("no columns")?;
                let names: Vec<&str> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
                let rows = object["rows"].as_array().map_or(0, Vec::len);
                let _ = write!(told, " [{}] rows: {rows}", names.join(", "));
            }
            "Status" => {
                checks::check_status(code, &object)?;
                if code >= 400 {
                    let text = |key: &str| object[key].as_str().unwrap_or_default();
                    let _ = write!(told, " {}: {}", text("reason"), text("message"));
                }
            }
            _ => {
                checks::check_type(&object)?;
                if !watches && code < 300 {
                    self.documents.check(&line.method, path, code, &object)?;
                }
            }
        }
        if let Some(meta) = object["metadata"].as_object() {
            let text = |key: &str| meta.get(key).and_then(Value::as_str).map(str::to_owned);
            self.seen.resource_version = text("resourceVersion").unwrap_or_default();
            self.seen.uid = text("uid").unwrap_or_default();
        }
        self.seen.object = object;
        Ok(told)
    }
}

/// An object as kubectl sends it from its typed clients.
fn sealed(body: &str) -> anyhow::Result<Vec<u8>> {
    let object: Value = serde_json::from_str(body)?;
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let ty = Schema::builtin().kind(group, version, text("kind")).context("a built-in kind")?;
    let object = penstock_schema::json::decode(&ty, body.as_bytes())?.object;
    let raw = protobuf::encode(&ty, &object)?;
    Ok(protobuf::seal_envelope(text("apiVersion"), text("kind"), &raw))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_kubectl_is_answered_as_documented() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let _stage = stage::set(&cluster).await?;
    let documents = Documents::read(&cluster).await?;
    let admin = cluster.identity("admin", &["system:masters"])?;
    let mut replay = Replay { cluster, admin, documents, seen: Seen::default() };
    let (mut told, mut wrong) = (String::new(), Vec::new());
    let commands = script::parse(REQUESTS);
    let requests: usize = commands.iter().map(|command| command.requests.len()).sum();
    assert_eq!((commands.len(), requests), (81, 209), "the script is whole");
    for command in commands {
        let _ = writeln!(told, "$ {}", command.line);
        for line in &command.requests {
            let _ = writeln!(told, "{} {}", line.method, line.path);
            match replay.replay(line).await {
                Ok(answered) => {
                    let _ = writeln!(told, "  {answered}");
                }
                Err(error) => {
                    let _ = writeln!(told, "  WRONG");
                    wrong.push(format!("$ {}\n{} {}\n  {error:#}", command.line, line.method, line.path));
                }
            }
        }
    }
    replay.cluster.stop().await;
    if std::env::var_os("REPLAY_SHOW").is_some() {
        println!("{told}");
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    insta::with_settings!({
        snapshot_path => "replay", prepend_module_to_snapshot => false, omit_expression => true,
    }, {
        insta::assert_snapshot!("answers", told);
    });
    Ok(())
}
