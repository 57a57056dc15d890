//! Claims into users: what the mappings and rules of one issuer make of a token's payload.
//!
//! Pure. The expressions are compiled when the server starts; a token's may spend one budget together.

use penstock_expressions::{Budget, Environment, Program, Record, Type, Value as Term, Variables, compile};
use serde_json::{Value, json};

use super::settings::{ClaimMappings, JwtSettings, Mapping};
use crate::error::FieldError;
use crate::registry::User;

/// Why a token that is genuine still is no user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClaimError {
    #[error("claim {claim:?} is {is}, not {wanted}")]
    Type { claim: String, is: &'static str, wanted: &'static str },
    #[error("claim {claim:?} is missing")]
    Missing { claim: String },
    #[error("claim {claim:?} is {is:?}, and must be {wanted:?}")]
    Value { claim: String, is: String, wanted: String },
    #[error("the email address is not verified")]
    EmailNotVerified,
    #[error("the {what} expression {source_text:?} failed: {why}")]
    Expression { what: &'static str, source_text: String, why: String },
    #[error("the username is empty")]
    NoName,
    #[error("validation rule {rule:?} does not hold{}", shown(.message))]
    Rule { rule: String, message: String },
}

fn shown(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// The compiled rules of an issuer.
#[derive(Debug)]
pub struct Rules {
    username: Source,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Program)>,
    required: Vec<(String, String)>,
    claims: Vec<Check>,
    users: Vec<Check>,
}

#[derive(Debug)]
enum Source {
    Claim { name: String, prefix: String },
    Expression(Program),
}

#[derive(Debug)]
struct Check {
    program: Program,
    message: String,
}

/// Compiles, and gathers what is wrong.
struct Compiler {
    claims: Environment,
    user: Environment,
    errors: Vec<FieldError>,
}

// === impl Compiler ===

impl Compiler {
    fn program(&mut self, of_user: bool, source: &str, path: String, wanted: &[Type]) -> Option<Program> {
        let environment = if of_user { &self.user } else { &self.claims };
        let compiled = compile(source, environment).map_err(|error| format!("compilation failed: {error}"));
        let checked = compiled.and_then(|program| {
            // What is only known when it is evaluated is looked at then.
            if *program.result_type() != Type::Dyn {
                program.must_give(wanted)?;
            }
            Ok(program)
        });
        checked.map_err(|why| self.errors.push(FieldError::invalid(path, source, why))).ok()
    }

    fn source(&mut self, mapping: &Mapping, path: &str, wanted: &[Type], has_prefix: bool) -> Option<Source> {
        match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
            (false, false) => {
                let why = "claim and expression can't both be set";
                self.errors.push(FieldError::invalid(path, "", why));
                None
            }
            (true, true) => None,
            (true, false) => {
                if let Some(prefix) = &mapping.prefix {
                    let why = "may not be specified when expression is set";
                    self.errors.push(FieldError::invalid(format!("{path}.prefix"), prefix.as_str(), why));
                }
                let path = format!("{path}.expression");
                self.program(false, &mapping.expression, path, wanted).map(Source::Expression)
            }
            (false, true) => {
                if has_prefix && mapping.prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(FieldError::required(format!("{path}.prefix"), why));
                }
                let prefix = mapping.prefix.clone().unwrap_or_default();
                Some(Source::Claim { name: mapping.claim.clone(), prefix })
            }
        }
    }

    fn duplicates<'a>(&mut self, of: impl Iterator<Item = (String, &'a str)>) {
        let mut seen = Vec::new();
        for (path, text) in of.filter(|(_, text)| !text.is_empty()) {
            if seen.contains(&text) {
                self.errors.push(FieldError::duplicate(path, text));
            }
            seen.push(text);
        }
    }
}

fn user_type() -> Type {
    let text = || Type::String;
    Record::of(
        "kubernetes.UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", Type::list(text())),
            ("extra", Type::map(text(), Type::list(text()))),
        ],
    )
}

// === impl Rules ===

impl Rules {
    /// Compiles the rules of the entry at `at`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn compile(settings: &JwtSettings, at: &str) -> Result<Self, Vec<FieldError>> {
        let mut compiler = Compiler {
            claims: Environment::default().variable("claims", Type::map(Type::String, Type::Dyn)),
            user: Environment::default().variable("user", user_type()),
            errors: Vec::new(),
        };
        let ClaimMappings { username, groups, uid, .. } = &settings.claim_mappings;
        let mappings = format!("{at}.claimMappings");
        let path = format!("{mappings}.username");
        if username.claim.is_empty() && username.expression.is_empty() {
            compiler.errors.push(FieldError::required(&path, "claim or expression is required"));
        }
        let name = compiler.source(username, &path, &[Type::String], true);
        let lists = [Type::String, Type::list(Type::String), Type::list(Type::Dyn)];
        let groups = compiler.source(groups, &format!("{mappings}.groups"), &lists, true);
        let uid = compiler.source(uid, &format!("{mappings}.uid"), &[Type::String], false);
        let extra = compile_extra(&mut compiler, settings, &format!("{mappings}.extra"), &lists);
        let (required, claims) =
            compile_claims(&mut compiler, settings, &format!("{at}.claimValidationRules"));
        let users = compile_users(&mut compiler, settings, &format!("{at}.userValidationRules"));
        // An address that nobody verified is anybody's.
        let names_email = username.expression.contains("claims.email")
            && username.expression.replace("claims.email_verified", "").contains("claims.email");
        let verifies = extra
            .iter()
            .map(|(_, program)| program.source())
            .chain(claims.iter().map(|check| check.program.source()))
            .chain([username.expression.as_str()])
            .any(|source| source.contains("claims.email_verified"));
        if names_email && !verifies {
            let why = "claims.email_verified must be used in claimMappings.username.expression or \
                 claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is \
                 used in claimMappings.username.expression";
            let path = format!("{mappings}.username.expression");
            compiler.errors.push(FieldError::invalid(path, username.expression.as_str(), why));
        }
        match name {
            Some(username) if compiler.errors.is_empty() => {
                Ok(Self { username, groups, uid, extra, required, claims, users })
            }
            _ => Err(compiler.errors),
        }
    }

    /// The user these claims (a JSON object) are of.
    ///
    /// # Errors
    /// The first mapping or rule that they do not satisfy.
    pub fn user(&self, claims: &Value) -> Result<User, ClaimError> {
        let mut budget = Budget::default();
        let variables = Variables::default().with("claims", Term::of(claims));
        let mut evaluate = Evaluation { variables: &variables, budget: &mut budget };
        let mut user = User::default();
        user.name = match &self.username {
            Source::Claim { name, prefix } => {
                let text = text(claims, name)?;
                if name == "email" {
                    check_verified(claims)?;
                }
                format!("{prefix}{text}")
            }
            Source::Expression(program) => {
                let value = evaluate.json("username", program)?;
                one(&value, "username", program)?
            }
        };
        if user.name.is_empty() {
            return Err(ClaimError::NoName);
        }
        user.groups = match &self.groups {
            None => Vec::new(),
            Some(Source::Claim { name, prefix }) => match claims.get(name) {
                None => Vec::new(),
                Some(value) => {
                    let groups = several(value).ok_or_else(|| ClaimError::Type {
                        claim: name.clone(),
                        is: kind_of(value),
                        wanted: "a string or a list of strings",
                    })?;
                    groups.into_iter().map(|group| format!("{prefix}{group}")).collect()
                }
            },
            Some(Source::Expression(program)) => {
                listed(&evaluate.json("groups", program)?, "groups", program)?
            }
        };
        user.uid = match &self.uid {
            None => String::new(),
            Some(Source::Claim { name, .. }) => text(claims, name)?.to_owned(),
            Some(Source::Expression(program)) => one(&evaluate.json("uid", program)?, "uid", program)?,
        };
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        for (key, program) in &self.extra {
            let values = listed(&evaluate.json("extra", program)?, "extra", program)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check(claims, &user, &mut budget)?;
        Ok(user)
    }

    fn check(&self, claims: &Value, user: &User, budget: &mut Budget) -> Result<(), ClaimError> {
        for (claim, wanted) in &self.required {
            let is = text(claims, claim)?;
            if is != wanted {
                return Err(ClaimError::Value {
                    claim: claim.clone(),
                    is: is.to_owned(),
                    wanted: wanted.clone(),
                });
            }
        }
        let variables = Variables::default().with("claims", Term::of(claims));
        hold(&self.claims, "claim validation", &variables, budget)?;
        let shown =
            json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        let variables = Variables::default().with("user", Term::of_type(&shown, &user_type()));
        hold(&self.users, "user validation", &variables, budget)
    }
}

/// The expressions of one token.
struct Evaluation<'e, 'v> {
    variables: &'e Variables<'v>,
    budget: &'e mut Budget,
}

impl<'v> Evaluation<'_, 'v> {
    fn json(&mut self, what: &'static str, program: &'v Program) -> Result<Value, ClaimError> {
        let failed =
            |why: String| ClaimError::Expression { what, source_text: program.source().to_owned(), why };
        let value = program.evaluate(self.variables, self.budget).map_err(|e| failed(e.to_string()))?;
        value.to_json().map_err(|e| failed(e.to_string()))
    }
}

fn hold<'v>(
    checks: &'v [Check],
    what: &'static str,
    variables: &Variables<'v>,
    budget: &mut Budget,
) -> Result<(), ClaimError> {
    for Check { program, message } in checks {
        let rule = program.source().to_owned();
        match program.holds(variables, budget) {
            Ok(true) => {}
            Ok(false) => return Err(ClaimError::Rule { rule, message: message.clone() }),
            Err(error) => {
                return Err(ClaimError::Expression { what, source_text: rule, why: error.to_string() });
            }
        }
    }
    Ok(())
}

fn compile_extra(
    compiler: &mut Compiler,
    settings: &JwtSettings,
    at: &str,
    wanted: &[Type],
) -> Vec<(String, Program)> {
    let mut compiled = Vec::new();
    let extra = &settings.claim_mappings.extra;
    compiler.duplicates(extra.iter().enumerate().map(|(i, e)| (format!("{at}[{i}].key"), e.key.as_str())));
    for (index, mapping) in extra.iter().enumerate() {
        let path = format!("{at}[{index}].key");
        let mut wrong = |why: &str| {
            compiler.errors.push(FieldError::invalid(&path, mapping.key.as_str(), why));
        };
        match mapping.key.split_once('/') {
            Some((domain, rest)) if domain.contains('.') && !rest.is_empty() => {
                let reserved = ["k8s.io", "kubernetes.io"];
                if reserved.iter().any(|r| domain == *r || domain.ends_with(&format!(".{r}"))) {
                    wrong("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
                }
            }
            _ => wrong("must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
        if mapping.key != mapping.key.to_lowercase() {
            wrong("must be lowercase");
        }
        let path = format!("{at}[{index}].valueExpression");
        if mapping.value_expression.is_empty() {
            compiler.errors.push(FieldError::required(path, ""));
        } else if let Some(program) = compiler.program(false, &mapping.value_expression, path, wanted) {
            compiled.push((mapping.key.clone(), program));
        }
    }
    compiled
}

fn compile_claims(
    compiler: &mut Compiler,
    settings: &JwtSettings,
    at: &str,
) -> (Vec<(String, String)>, Vec<Check>) {
    let rules = &settings.claim_validation_rules;
    let named = |i: usize, field: &str| format!("{at}[{i}].{field}");
    compiler.duplicates(rules.iter().enumerate().map(|(i, r)| (named(i, "claim"), r.claim.as_str())));
    compiler
        .duplicates(rules.iter().enumerate().map(|(i, r)| (named(i, "expression"), r.expression.as_str())));
    let (mut required, mut checks) = (Vec::new(), Vec::new());
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{at}[{index}]");
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                let why = "claim and expression can't both be set";
                compiler.errors.push(FieldError::invalid(path, rule.claim.as_str(), why));
            }
            (true, true) => {
                compiler.errors.push(FieldError::required(path, "claim or expression is required"));
            }
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    let path = format!("{path}.message");
                    compiler.errors.push(FieldError::invalid(path, rule.message.as_str(), why));
                }
                required.push((rule.claim.clone(), rule.required_value.clone()));
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    let path = format!("{path}.requiredValue");
                    compiler.errors.push(FieldError::invalid(path, rule.required_value.as_str(), why));
                }
                let path = format!("{path}.expression");
                if let Some(program) = compiler.program(false, &rule.expression, path, &[Type::Bool]) {
                    checks.push(Check { program, message: rule.message.clone() });
                }
            }
        }
    }
    (required, checks)
}

fn compile_users(compiler: &mut Compiler, settings: &JwtSettings, at: &str) -> Vec<Check> {
    let rules = &settings.user_validation_rules;
    let path = |index: usize| format!("{at}[{index}].expression");
    compiler.duplicates(rules.iter().enumerate().map(|(i, r)| (path(i), r.expression.as_str())));
    let mut checks = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        if rule.expression.is_empty() {
            compiler.errors.push(FieldError::required(path(index), ""));
        } else if let Some(program) = compiler.program(true, &rule.expression, path(index), &[Type::Bool]) {
            checks.push(Check { program, message: rule.message.clone() });
        }
    }
    checks
}

fn text<'a>(claims: &'a Value, claim: &str) -> Result<&'a str, ClaimError> {
    let value = claims.get(claim).ok_or_else(|| ClaimError::Missing { claim: claim.to_owned() })?;
    let wrong = || ClaimError::Type { claim: claim.to_owned(), is: kind_of(value), wanted: "a string" };
    value.as_str().ok_or_else(wrong)
}

fn check_verified(claims: &Value) -> Result<(), ClaimError> {
    match claims.get("email_verified") {
        None | Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err(ClaimError::EmailNotVerified),
        Some(other) => Err(ClaimError::Type {
            claim: "email_verified".to_owned(),
            is: kind_of(other),
            wanted: "a boolean",
        }),
    }
}

/// A string, or a list of nothing else.
fn several(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn one(value: &Value, what: &'static str, program: &Program) -> Result<String, ClaimError> {
    value.as_str().map(str::to_owned).ok_or_else(|| ClaimError::Expression {
        what,
        source_text: program.source().to_owned(),
        why: format!("it gives {}, not a string", kind_of(value)),
    })
}

/// A string or a list of strings; nothing at all is an empty list, and so is an empty string.
fn listed(value: &Value, what: &'static str, program: &Program) -> Result<Vec<String>, ClaimError> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let values = several(value).ok_or_else(|| ClaimError::Expression {
        what,
        source_text: program.source().to_owned(),
        why: format!("it gives {}, not a string or a list of strings", kind_of(value)),
    })?;
    Ok(values.into_iter().filter(|text| !text.is_empty()).map(str::to_owned).collect())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "claims/tests.rs"]
mod tests;
