//! Claims into users: what the mappings and rules of one issuer make of a token's payload.
//!
//! Pure. The expressions are compiled when the server starts; a token's may spend one budget together.

mod compiler;

use penstock_expressions::{Budget, Program, Type, Value as Term, Variables};
use serde_json::{Value, json};

use super::settings::{ClaimMappings, JwtSettings};
use crate::error::FieldError;
use crate::registry::User;
use compiler::{Compiler, compile_claims, compile_extra, compile_users, user_type};

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

// === impl Rules ===

impl Rules {
    /// Compiles the rules of the entry at `at`.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn compile(settings: &JwtSettings, at: &str) -> Result<Self, Vec<FieldError>> {
        let mut compiler = Compiler::new();
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
        let name = match &self.username {
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
        if name.is_empty() {
            return Err(ClaimError::NoName);
        }
        let mut user = User { name, ..User::default() };
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
mod tests;
