//! Mappings and rules into programs, with everything that is wrong with them.

use penstock_expressions::{Environment, Program, Record, Type, compile};

use super::{Check, Source};
use crate::authn::jwt::settings::{JwtSettings, Mapping};
use crate::error::FieldError;

/// Compiles, and gathers what is wrong.
pub(super) struct Compiler {
    claims: Environment,
    user: Environment,
    pub errors: Vec<FieldError>,
}

// === impl Compiler ===

impl Compiler {
    pub fn new() -> Self {
        Self {
            claims: Environment::default().variable("claims", Type::map(Type::String, Type::Dyn)),
            user: Environment::default().variable("user", user_type()),
            errors: Vec::new(),
        }
    }

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

    pub fn source(
        &mut self,
        mapping: &Mapping,
        path: &str,
        wanted: &[Type],
        has_prefix: bool,
    ) -> Option<Source> {
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

/// `user` as expressions see it.
pub(super) fn user_type() -> Type {
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

pub(super) fn compile_extra(
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

pub(super) fn compile_claims(
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

pub(super) fn compile_users(compiler: &mut Compiler, settings: &JwtSettings, at: &str) -> Vec<Check> {
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
