//! Mappings and rules, by configurations as administrators write them.

use serde_json::json;

use super::*;

fn rules(text: &str) -> Result<Rules, Vec<String>> {
    let settings: JwtSettings = serde_yaml::from_str(text).unwrap();
    Rules::compile(&settings, "jwt[0]").map_err(|errors| errors.iter().map(|e| e.path.clone()).collect())
}

const ISSUER: &str = "issuer: {url: 'https://i.example', audiences: [a]}\n";

fn with(text: &str) -> Rules {
    rules(&format!("{ISSUER}{text}")).unwrap()
}

fn wrong(text: &str) -> Vec<String> {
    rules(&format!("{ISSUER}{text}")).map(|_| ()).unwrap_err()
}

#[test]
fn claims_and_prefixes_make_a_user() {
    let rules = with(
        "claimMappings: {username: {claim: sub, prefix: 'o:'}, groups: {claim: groups, prefix: 'g:'}, uid: {claim: id}}",
    );
    let user = rules.user(&json!({"sub": "ann", "groups": ["a", "b"], "id": "7", "jti": "x"})).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("o:ann", "7"));
    assert_eq!(user.groups, ["g:a", "g:b"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=x"]);
    // One group may be a string, and none at all is none.
    assert_eq!(rules.user(&json!({"sub": "a", "groups": "one", "id": "7"})).unwrap().groups, ["g:one"]);
    assert!(rules.user(&json!({"sub": "a", "id": "7"})).unwrap().groups.is_empty());
    let no_list = rules.user(&json!({"sub": "a", "groups": 1, "id": "7"})).unwrap_err();
    assert!(matches!(no_list, ClaimError::Type { .. }), "{no_list}");
    let nobody = rules.user(&json!({"groups": []})).unwrap_err();
    assert_eq!(nobody, ClaimError::Missing { claim: "sub".into() });
}

#[test]
fn expressions_make_a_user_too() {
    let rules = with(
        "claimMappings:\n  username: {expression: 'claims.sub + \"@\" + claims.tenant'}\n  \
         groups: {expression: 'claims.roles.split(\",\")'}\n  uid: {expression: claims.id}\n  \
         extra: [{key: example.org/tenant, valueExpression: claims.tenant}, {key: example.org/none, valueExpression: '\"\"'}]",
    );
    let user = rules.user(&json!({"sub": "ann", "tenant": "t", "roles": "x,y", "id": "u"})).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann@t", "u"));
    assert_eq!(user.groups, ["x", "y"]);
    assert_eq!(user.extra.keys().collect::<Vec<_>>(), ["example.org/tenant"]);
    let number = rules.user(&json!({"sub": 1, "tenant": "t", "roles": "x", "id": "u"})).unwrap_err();
    assert!(matches!(number, ClaimError::Expression { what: "username", .. }), "{number}");
}

#[test]
fn rules_that_do_not_hold_refuse() {
    let rules = with(
        "claimMappings: {username: {claim: sub, prefix: ''}}\n\
         claimValidationRules: [{claim: hd, requiredValue: example.com}, {expression: 'claims.exp - claims.nbf <= 86400', message: too long}]\n\
         userValidationRules: [{expression: \"!user.username.startsWith('system:')\", message: reserved}]",
    );
    let claims = |sub: &str, hd: &str, exp: u64| json!({"sub": sub, "hd": hd, "exp": exp, "nbf": 0});
    assert!(rules.user(&claims("ann", "example.com", 86_400)).is_ok());
    let elsewhere = rules.user(&claims("ann", "other", 1)).unwrap_err();
    assert!(matches!(elsewhere, ClaimError::Value { .. }), "{elsewhere}");
    let long = rules.user(&claims("ann", "example.com", 86_401)).unwrap_err();
    assert!(long.to_string().contains("too long"), "{long}");
    let system = rules.user(&claims("system:admin", "example.com", 1)).unwrap_err();
    assert!(system.to_string().contains("reserved"), "{system}");
}

#[test]
fn an_address_counts_when_it_is_verified() {
    let rules = with("claimMappings: {username: {claim: email, prefix: ''}}");
    assert!(rules.user(&json!({"email": "a@b"})).is_ok());
    assert!(rules.user(&json!({"email": "a@b", "email_verified": true})).is_ok());
    let unverified = rules.user(&json!({"email": "a@b", "email_verified": false})).unwrap_err();
    assert_eq!(unverified, ClaimError::EmailNotVerified);
    assert_eq!(
        wrong("claimMappings: {username: {expression: claims.email}}"),
        ["jwt[0].claimMappings.username.expression"]
    );
    with("claimMappings: {username: {expression: 'claims.email_verified ? claims.email : \"\"'}}");
}

#[test]
fn everything_wrong_is_told_at_once() {
    assert_eq!(
        wrong(
            "claimMappings:\n  username: {claim: sub}\n  groups: {claim: a, expression: b}\n  uid: {expression: '1 +'}\n  \
             extra: [{key: plain, valueExpression: claims.a}, {key: a.kubernetes.io/x, valueExpression: ''}]\n\
             claimValidationRules: [{}, {claim: a, message: m}, {expression: '1'}]\nuserValidationRules: [{}, {expression: user.nobody}]"
        ),
        [
            "jwt[0].claimMappings.username.prefix",
            "jwt[0].claimMappings.groups",
            "jwt[0].claimMappings.uid.expression",
            "jwt[0].claimMappings.extra[0].key",
            "jwt[0].claimMappings.extra[1].key",
            "jwt[0].claimMappings.extra[1].valueExpression",
            "jwt[0].claimValidationRules[0]",
            "jwt[0].claimValidationRules[1].message",
            "jwt[0].claimValidationRules[2].expression",
            "jwt[0].userValidationRules[0].expression",
            "jwt[0].userValidationRules[1].expression",
        ]
    );
}
