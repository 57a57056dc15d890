//! Who one is by somebody else's word: issuers of tokens and webhooks, real ones on loopback with TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use penstock_apiserver::authn::configuration::{self, Anonymous};
use penstock_apiserver::authn::webhook::TokenWebhookConfig;
use penstock_apiserver::authz::webhook::AccessWebhookConfig;
use penstock_apiserver::authz::{AuthorizationConfig, Mode};
use penstock_apiserver::{DEFAULT_ISSUER, StaticToken, User, Webhook};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::cluster::Cluster;
use crate::https::{HttpsServer, json_answer};
use crate::replay::checks;

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const AN_HOUR: Duration = Duration::from_secs(3600);

/// An answer's status and object.
type Answered = (StatusCode, Value);

/// Asks through the router: only the headers say who asks.
async fn ask(cluster: &Cluster, request: Request<Body>) -> anyhow::Result<Answered> {
    let answer = cluster.server.router().oneshot(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let object: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.as_u16() >= 400 {
        checks::check_status(status.as_u16(), &object)?;
    }
    Ok((status, object))
}

fn request(method: &str, path: &str, token: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    request.body(body).expect("a request")
}

/// Who the server takes the bearer of a token for.
async fn who_am_i(cluster: &Cluster, token: &str) -> anyhow::Result<Answered> {
    let (status, object) = ask(cluster, request("POST", SELF, Some(token), &json!({}))).await?;
    Ok((status, object["status"]["userInfo"].clone()))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// An issuer whose keys can change.
struct TokenIssuer {
    server: HttpsServer,
    keys: Arc<Mutex<Vec<(EncodingKey, Jwk)>>>,
}

fn key(id: &str) -> anyhow::Result<(EncodingKey, Jwk)> {
    let key = EncodingKey::from_ec_pem(KeyPair::generate()?.serialize_pem().as_bytes())?;
    let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
    public.common.key_id = Some(id.to_owned());
    Ok((key, public))
}

// === impl TokenIssuer ===

impl TokenIssuer {
    async fn start() -> anyhow::Result<Self> {
        let keys = Arc::new(Mutex::new(vec![key("first")?]));
        let url: Arc<Mutex<String>> = Arc::default();
        let (published, own) = (keys.clone(), url.clone());
        let server = HttpsServer::start(&[], move |path, _| match path {
            "/realm/.well-known/openid-configuration" => {
                let url = own.lock().clone();
                json_answer(&json!({"issuer": url, "jwks_uri": format!("{url}/keys")}))
            }
            "/realm/keys" => {
                let keys: Vec<Jwk> = published.lock().iter().map(|(_, public)| public.clone()).collect();
                json_answer(&json!({ "keys": keys }))
            }
            _ => Response::builder().status(404).body(Body::empty()).expect("a response"),
        })
        .await;
        *url.lock() = format!("https://{}/realm", server.address);
        Ok(Self { server, keys })
    }

    fn url(&self) -> String {
        format!("https://{}/realm", self.server.address)
    }

    /// How often its keys were read.
    fn readings(&self) -> usize {
        self.server.asked.lock().iter().filter(|(path, _)| path == "/realm/keys").count()
    }

    /// A token with these claims, by the newest key under an id of its own or another.
    fn token(&self, claims: &Value, id: Option<&str>) -> anyhow::Result<String> {
        let keys = self.keys.lock();
        let (key, public) = keys.last().expect("a key");
        let mut header = Header::new(Algorithm::ES256);
        header.kid = id.map(str::to_owned).or(public.common.key_id.clone());
        Ok(jsonwebtoken::encode(&header, claims, key)?)
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url(), "aud": "penstock", "sub": "ann", "exp": now() + 600, "roles": ["dev"], "team": "net"})
    }

    /// An AuthenticationConfiguration that trusts it.
    fn configuration(&self) -> anyhow::Result<String> {
        let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &self.server.bundle)?;
        Ok(json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": self.url(), "audiences": ["penstock", "other"], "audienceMatchPolicy": "MatchAny",
                    "certificateAuthority": String::from_utf8(pem)?},
                "claimMappings": {
                    "username": {"claim": "sub", "prefix": "oidc:"},
                    "groups": {"expression": "claims.roles.map(r, 'role:' + r)"},
                    "extra": [{"key": "example.org/team", "valueExpression": "claims.team"}]},
                "claimValidationRules": [{"expression": "claims.exp - claims.?nbf.orValue(claims.exp) < 86400", "message": "too long"}],
                "userValidationRules": [{"expression": "user.username != 'oidc:banned'", "message": "banned"}]}]
        })
        .to_string())
    }

    async fn cluster(&self) -> anyhow::Result<Cluster> {
        let (jwt, _) = configuration::parse("test", self.configuration()?.as_bytes())?;
        Cluster::start_with(move |config, _| config.authentication.jwt = jwt).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_tokens_say_who_one_is() -> anyhow::Result<()> {
    let issuer = TokenIssuer::start().await?;
    let cluster = issuer.cluster().await?;
    let token = issuer.token(&issuer.claims(), None)?;
    let (status, user) = who_am_i(&cluster, &token).await?;
    assert_eq!((status, &user["username"]), (StatusCode::CREATED, &json!("oidc:ann")), "{user}");
    assert_eq!(user["groups"], json!(["role:dev", "system:authenticated"]));
    assert_eq!(user["extra"]["example.org/team"], json!(["net"]));

    let with = |field: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[field] = value;
        claims
    };
    let mut refused = vec![
        issuer.token(&with("aud", json!(["elsewhere"])), None)?,
        issuer.token(&with("exp", json!(now() - 1)), None)?,
        issuer.token(&with("nbf", json!(now() + 3600)), None)?,
        issuer.token(&with("nbf", json!(now() - 90_000)), None)?,
        issuer.token(&with("sub", json!("banned")), None)?,
        issuer.token(&with("sub", json!(7)), None)?,
        issuer.token(&with("roles", Value::Null), None)?,
        issuer.token(&with("iss", json!("https://stranger.example")), None)?,
        jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &issuer.claims(),
            &EncodingKey::from_secret(b"secret"),
        )?,
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &issuer.claims(), &key("x")?.0)?,
    ];
    let mut unsigned = token.clone();
    unsigned.truncate(token.rfind('.').expect("a signature") + 1);
    refused.push(unsigned);
    refused.push(format!("{}.{}", "x".repeat(100_000), token));
    for token in &refused {
        let (status, _) = who_am_i(&cluster, token).await?;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{token}");
    }

    // Reviews ask the same issuers, and tokens are for this server alone.
    let review = |token: &str, audiences: Value| {
        let spec = json!({"spec": {"token": token, "audiences": audiences}});
        let user = User::system("test");
        let client = cluster.server.client(user);
        async move {
            let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
                .header("content-type", "application/json")
                .body(spec.to_string().into_bytes())?;
            anyhow::Ok(client.request::<Value>(request).await?["status"].clone())
        }
    };
    let known = review(&token, json!([])).await?;
    assert_eq!((&known["authenticated"], &known["user"]["username"]), (&json!(true), &json!("oidc:ann")));
    assert_eq!(known["audiences"], json!([DEFAULT_ISSUER]));
    let elsewhere = review(&token, json!(["vault"])).await?;
    assert_ne!(elsewhere["authenticated"], true, "{elsewhere}");
    let expired = review(&refused[1], json!([])).await?;
    assert!(expired["error"].as_str().is_some_and(|why| why.contains("expired")), "{expired}");
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_new_keys_are_read_when_a_token_names_one() -> anyhow::Result<()> {
    let issuer = TokenIssuer::start().await?;
    let cluster = issuer.cluster().await?;
    let first = issuer.token(&issuer.claims(), None)?;
    assert_eq!(who_am_i(&cluster, &first).await?.0, StatusCode::CREATED);
    assert_eq!(issuer.readings(), 1);
    issuer.keys.lock().push(key("second")?);
    let second = issuer.token(&issuer.claims(), None)?;
    assert_eq!(who_am_i(&cluster, &second).await?.0, StatusCode::CREATED);
    assert_eq!(who_am_i(&cluster, &first).await?.0, StatusCode::CREATED, "both keys are published");
    assert_eq!(issuer.readings(), 2);
    // Names nobody has make the server ask a few times, not for ever.
    for unknown in 0..20 {
        let token = issuer.token(&issuer.claims(), Some(&format!("unknown-{unknown}")))?;
        assert_eq!(who_am_i(&cluster, &token).await?.0, StatusCode::UNAUTHORIZED);
    }
    assert!(issuer.readings() < 8, "{}", issuer.readings());
    assert_eq!(who_am_i(&cluster, &second).await?.0, StatusCode::CREATED);
    cluster.stop().await;
    Ok(())
}

/// A kubeconfig for a webhook.
fn webhook(folder: &Path, server: &HttpsServer, path: &str) -> Webhook {
    let file = folder.join("webhook.kubeconfig");
    let config = json!({
        "clusters": [{"name": "w", "cluster": {"server": format!("https://{}{path}", server.address),
            "certificate-authority-data": server.bundle}}],
        "users": [{"name": "w", "user": {"token": "of-the-api-server"}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}], "current-context": "w"});
    std::fs::write(&file, config.to_string()).expect("a file");
    Webhook::read(&file).expect("a webhook")
}

fn reviewer(_: &str, review: &Value) -> Response<Body> {
    let mut answer = review.clone();
    answer["status"] = match review["spec"]["token"].as_str().unwrap_or_default() {
        "of-bob" => json!({"authenticated": true, "user": {"username": "bob", "groups": ["hooked"]}}),
        "of-vault" => json!({"authenticated": true, "audiences": ["vault"], "user": {"username": "vault"}}),
        "revoked" => json!({"authenticated": false, "error": "it was revoked"}),
        "broken" => return json_answer(&json!({"kind": "Status"})),
        _ => json!({"authenticated": false}),
    };
    json_answer(&answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_knows_tokens_nobody_else_does() -> anyhow::Result<()> {
    let server = HttpsServer::start(&[], reviewer).await;
    let cluster = Cluster::start_with(|config, folder| {
        let webhook = webhook(folder, &server, "/authenticate");
        config.authentication.token_webhook = Some(TokenWebhookConfig { webhook, remember: AN_HOUR });
        let user = User { name: "fixed".into(), ..User::default() };
        config.static_tokens.push(StaticToken { token: "of-fixed".into(), user });
    })
    .await?;
    for _ in 0..3 {
        let (status, user) = who_am_i(&cluster, "of-bob").await?;
        assert_eq!((status, &user["username"]), (StatusCode::CREATED, &json!("bob")));
        assert_eq!(user["groups"], json!(["hooked", "system:authenticated"]));
    }
    assert_eq!(server.asked.lock().len(), 1, "the answer is remembered");
    let (path, asked) = server.asked.lock()[0].clone();
    assert!(path.starts_with("/authenticate"), "{path}");
    assert_eq!(asked["spec"]["audiences"], json!([DEFAULT_ISSUER]));
    assert_eq!(server.headers.lock()[0]["authorization"], "Bearer of-the-api-server");

    for token in ["of-nobody", "revoked", "broken", "of-vault"] {
        assert_eq!(who_am_i(&cluster, token).await?.0, StatusCode::UNAUTHORIZED, "{token}");
    }
    // Who is known without it is not asked about.
    let asked = server.asked.lock().len();
    assert_eq!(who_am_i(&cluster, "of-fixed").await?.1["username"], "fixed");
    assert_eq!(server.asked.lock().len(), asked);

    let spec = json!({"spec": {"token": "of-vault", "audiences": ["vault", "other"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let request = Request::post(reviews).header("content-type", "application/json");
    let client = cluster.server.client(User::system("test"));
    let review: Value = client.request(request.body(spec.to_string().into_bytes())?).await?;
    assert_eq!(review["status"]["user"]["username"], "vault", "{review}");
    assert_eq!(review["status"]["audiences"], json!(["vault"]));
    drop(server);
    assert_eq!(who_am_i(&cluster, "of-carol").await?.0, StatusCode::UNAUTHORIZED, "nobody answers");
    assert_eq!(who_am_i(&cluster, "of-bob").await?.0, StatusCode::CREATED, "what is remembered counts");
    cluster.stop().await;
    Ok(())
}

/// Lets `dan` do everything but delete, and says no to `eve`.
fn access_reviewer(_: &str, review: &Value) -> Response<Body> {
    let spec = &review["spec"];
    let mut answer = review.clone();
    answer["status"] = match spec["user"].as_str().unwrap_or_default() {
        "dan" if spec["resourceAttributes"]["verb"] != "delete" => {
            json!({"allowed": true, "reason": "dan may"})
        }
        "dan" => json!({"allowed": false, "reason": "dan deletes nothing"}),
        "eve" => json!({"allowed": false, "denied": true, "reason": "eve never"}),
        _ => json!({"allowed": false}),
    };
    json_answer(&answer)
}

fn token_of(name: &str) -> StaticToken {
    StaticToken { token: format!("of-{name}"), user: User { name: name.to_owned(), ..User::default() } }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_authorises_at_its_place_in_the_order() -> anyhow::Result<()> {
    let server = HttpsServer::start(&[], access_reviewer).await;
    let start = async |modes: Vec<Mode>| {
        Cluster::start_with(|config, folder| {
            config.static_tokens = ["dan", "eve", "fay"].map(token_of).to_vec();
            let webhook = webhook(folder, &server, "/authorize");
            let webhook =
                AccessWebhookConfig { webhook, remember_allowed: AN_HOUR, remember_refused: AN_HOUR };
            config.authorization = AuthorizationConfig { modes, webhook: Some(webhook) };
        })
        .await
    };
    let cluster = start(vec![Mode::Node, Mode::Rbac, Mode::Webhook]).await?;
    let maps = "/api/v1/namespaces/default/configmaps";
    let on = async |cluster: &Cluster, method: &str, path: &str, who: &str| {
        ask(cluster, request(method, path, Some(&format!("of-{who}")), &Value::Null)).await
    };
    let before = server.asked.lock().len();
    for _ in 0..2 {
        assert_eq!(on(&cluster, "GET", maps, "dan").await?.0, StatusCode::OK);
    }
    assert_eq!(server.asked.lock().len(), before + 1, "the answer is remembered");
    let (_, asked) = server.asked.lock()[before].clone();
    assert_eq!(
        asked["spec"],
        json!({"user": "dan", "groups": ["system:authenticated"],
            "resourceAttributes": {"namespace": "default", "verb": "list", "version": "v1", "resource": "configmaps"}})
    );
    for (who, method, why) in
        [("dan", "DELETE", "dan deletes nothing"), ("eve", "GET", "eve never"), ("fay", "GET", "cannot get")]
    {
        let (status, refused) = on(&cluster, method, &format!("{maps}/x"), who).await?;
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(status == StatusCode::FORBIDDEN && message.contains(why), "{message}");
    }
    // What RBAC allows before it is not asked of the webhook: everybody may read the version.
    let asked = server.asked.lock().len();
    assert_eq!(on(&cluster, "GET", "/version", "eve").await?.0, StatusCode::OK);
    assert_eq!(server.asked.lock().len(), asked);

    let review = |path: &str, spec: Value, who: &str| {
        request("POST", path, Some(&format!("of-{who}")), &json!({ "spec": spec }))
    };
    let own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let spec = json!({"resourceAttributes": {"verb": "get", "resource": "pods"}});
    let (_, eve) = ask(&cluster, review(own, spec, "eve")).await?;
    assert_eq!(eve["status"], json!({"allowed": false, "denied": true, "reason": "eve never"}));
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let (_, rules) = ask(&cluster, review(rules, json!({"namespace": "default"}), "dan")).await?;
    assert_eq!(rules["status"]["incomplete"], true, "nobody can list what a webhook allows");
    cluster.stop().await;

    let cluster = start(vec![Mode::Webhook, Mode::Rbac]).await?;
    assert_eq!(on(&cluster, "GET", "/version", "eve").await?.0, StatusCode::FORBIDDEN, "it denies first");
    drop(server);
    assert_eq!(on(&cluster, "GET", "/version", "gil").await?.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        on(&cluster, "GET", "/version", "fay").await?.0,
        StatusCode::OK,
        "and has no opinion when gone"
    );
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_anonymous_but_where_it_is_allowed() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(|config, _| {
        let condition = configuration::AnonymousCondition { path: "/livez".into() };
        config.authentication.anonymous = Anonymous { enabled: true, conditions: vec![condition] };
    })
    .await?;
    let get = |path: &str, token: Option<&str>| request("GET", path, token, &Value::Null);
    assert_eq!(ask(&cluster, get("/livez", None)).await?.0, StatusCode::OK);
    assert_eq!(ask(&cluster, get("/readyz", None)).await?.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&cluster, get("/livez", Some("wrong"))).await?.0, StatusCode::UNAUTHORIZED);
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_good_credential_is_enough_and_bad_ones_are_refused_once() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(|config, _| config.static_tokens.push(token_of("ann"))).await?;
    let elsewhere = Cluster::start().await?;
    let stranger = elsewhere.identity("admin", &["system:masters"])?;
    for (token, wanted) in [("of-ann", StatusCode::OK), ("wrong", StatusCode::UNAUTHORIZED)] {
        let request = Request::get("/version")
            .header("host", "test")
            .header("authorization", format!("Bearer {token}"))
            .body(http_body_util::Full::default())?;
        let answer = crate::replay::exchange::send(&cluster, &stranger, request).await?;
        let answer = crate::replay::exchange::whole(answer).await?;
        assert_eq!(answer.status, wanted, "{token}");
        if wanted == StatusCode::UNAUTHORIZED {
            checks::check_status(401, &serde_json::from_slice(&answer.body)?)?;
        }
    }
    elsewhere.stop().await;
    cluster.stop().await;
    Ok(())
}
