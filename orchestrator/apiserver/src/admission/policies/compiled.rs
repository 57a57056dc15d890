//! Policies as programs: compiled when they change, by the same code that refuses wrong ones when they are written.

use std::collections::HashSet;

use penstock_expressions::{Environment, Program, Type};
use serde_json::Value;

use super::matching::Matching;
use crate::admission::expressions::{Offers, compile, environment};
use crate::error::FieldError;
use crate::registry::object::{items_at, meta_str, str_at};

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Validating,
    Mutating,
}

/// One policy.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    pub matching: Matching,
    /// `apiVersion` and `kind` of its parameters.
    pub param_kind: Option<(String, String)>,
    /// Whether what goes wrong refuses the request.
    pub fails: bool,
    pub conditions: Vec<(String, Program)>,
    /// In the order in which they may refer to each other.
    pub variables: Vec<(String, Program)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Program)>,
    pub mutations: Vec<Mutation>,
    pub reinvoked: bool,
    /// Why it cannot be evaluated. Such a policy was stored by somebody who checks less.
    pub broken: Option<String>,
}

#[derive(Debug)]
pub(super) struct Validation {
    pub expression: Program,
    pub message: String,
    pub message_expression: Option<Program>,
    pub reason: String,
}

#[derive(Debug)]
pub(super) enum Mutation {
    Apply(Program),
    JsonPatch(Program),
}

/// Who is held to a policy, and with what parameters.
#[derive(Debug)]
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    pub matching: Option<Matching>,
    pub param_ref: Option<Value>,
    pub actions: Vec<String>,
}

// === impl Binding ===

impl Binding {
    pub fn of(binding: &Value) -> Self {
        let actions = items_at(binding, "/spec/validationActions");
        Self {
            name: meta_str(binding, "name").to_owned(),
            policy: str_at(binding, "/spec/policyName").to_owned(),
            matching: binding.pointer("/spec/matchResources").map(Matching::of),
            param_ref: binding.pointer("/spec/paramRef").cloned(),
            actions: actions.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        }
    }

    pub fn asks_to(&self, action: &str) -> bool {
        self.actions.iter().any(|asked| asked == action)
    }
}

// === impl Policy ===

impl Policy {
    /// The policy, and what is wrong with its expressions.
    pub fn compile(policy: &Value, role: Role) -> (Policy, Vec<FieldError>) {
        let spec = &policy["spec"];
        let text = |pointer: &str| str_at(spec, pointer).to_owned();
        let param_kind =
            spec["paramKind"].is_object().then(|| (text("/paramKind/apiVersion"), text("/paramKind/kind")));
        let mut compiler = Compiler::new(param_kind.is_some(), Type::Dyn);
        let conditions = compiler.conditions(spec);
        let variables = compiler.variables(spec);
        let (mut validations, mut annotations, mut mutations) = (Vec::new(), Vec::new(), Vec::new());
        match role {
            Role::Validating => {
                validations = compiler.validations(spec);
                annotations = compiler.annotations(spec);
            }
            Role::Mutating => mutations = compiler.mutations(spec),
        }
        let broken = compiler.errors.first().map(|error| error.detail.clone());
        let compiled = Policy {
            name: meta_str(policy, "name").to_owned(),
            matching: Matching::of(&spec["matchConstraints"]),
            param_kind,
            fails: spec["failurePolicy"] != "Ignore",
            conditions,
            variables,
            validations,
            annotations,
            mutations,
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            broken,
        };
        (compiled, compiler.errors)
    }
}

/// The warnings of expressions of a validating policy over objects of a type: field and text.
pub(super) fn warnings_of(policy: &Value, object: &Type) -> Vec<(String, String)> {
    let spec = &policy["spec"];
    let mut compiler = Compiler::new(spec["paramKind"].is_object(), object.clone());
    compiler.variables(spec);
    // What is wrong with variables shows where they are used.
    compiler.errors.clear();
    compiler.validations(spec);
    let plain = |detail: &str| detail.trim_start_matches("compilation failed: ").to_owned();
    compiler.errors.into_iter().map(|error| (error.path, plain(&error.detail))).collect()
}

/// Compiles the expressions of one policy and collects what is wrong.
struct Compiler {
    has_params: bool,
    /// Names of expressions, variables so far included.
    environment: Environment,
    messages: Environment,
    object: Type,
    errors: Vec<FieldError>,
}

impl Compiler {
    fn new(has_params: bool, object: Type) -> Self {
        let offers = Offers { params: has_params, authorizer: true, objects: false };
        Self {
            has_params,
            environment: environment(offers, &object),
            messages: environment(Offers { authorizer: false, ..offers }, &object),
            object,
            errors: Vec::new(),
        }
    }

    fn compile(
        &mut self,
        path: String,
        source: &str,
        names: &Environment,
        wanted: &[Type],
    ) -> Option<Program> {
        match compile(source, names, wanted) {
            Ok(program) => Some(program),
            Err(detail) => {
                self.errors.push(FieldError::invalid(path, source, detail));
                None
            }
        }
    }

    fn conditions(&mut self, spec: &Value) -> Vec<(String, Program)> {
        let offers = Offers { params: self.has_params, authorizer: true, objects: false };
        let names = environment(offers, &self.object);
        let mut compiled = Vec::new();
        for (index, condition) in items_at(spec, "/matchConditions").iter().enumerate() {
            let source = str_at(condition, "/expression").trim();
            let path = format!("spec.matchConditions[{index}].expression");
            if source.is_empty() {
                self.errors.push(FieldError::required(path, ""));
            } else if let Some(program) = self.compile(path, source, &names, &[Type::Bool]) {
                compiled.push((str_at(condition, "/name").to_owned(), program));
            }
        }
        compiled
    }

    fn variables(&mut self, spec: &Value) -> Vec<(String, Program)> {
        let mut compiled: Vec<(String, Program)> = Vec::new();
        for (index, variable) in items_at(spec, "/variables").iter().enumerate() {
            let (name, source) = (str_at(variable, "/name"), str_at(variable, "/expression"));
            let path = format!("spec.variables[{index}].expression");
            if source.trim().is_empty() {
                self.errors.push(FieldError::required(path, "expression is not specified"));
                continue;
            }
            let names = self.environment.clone();
            let program = self.compile(path, source, &names, &[]);
            let ty = program.as_ref().map_or(Type::Dyn, |program| program.result_type().clone());
            self.environment = std::mem::take(&mut self.environment).composed(name, ty.clone());
            self.messages = std::mem::take(&mut self.messages).composed(name, ty);
            compiled.extend(program.map(|program| (name.to_owned(), program)));
        }
        compiled
    }

    fn validations(&mut self, spec: &Value) -> Vec<Validation> {
        let mut compiled = Vec::new();
        for (index, validation) in items_at(spec, "/validations").iter().enumerate() {
            let text = |field: &str| validation[field].as_str().unwrap_or_default();
            let path = |field: &str| format!("spec.validations[{index}].{field}");
            let names = self.environment.clone();
            let expression = if text("expression").trim().is_empty() {
                self.errors.push(FieldError::required(path("expression"), "expression is not specified"));
                None
            } else {
                self.compile(path("expression"), text("expression"), &names, &[Type::Bool])
            };
            let given = text("messageExpression");
            let message_expression = if given.is_empty() {
                None
            } else if given.trim().is_empty() {
                let detail = "must be non-empty if specified";
                self.errors.push(FieldError::invalid(path("messageExpression"), given, detail));
                None
            } else {
                let names = self.messages.clone();
                self.compile(path("messageExpression"), given, &names, &[Type::String])
            };
            if let Some(expression) = expression {
                compiled.push(Validation {
                    expression,
                    message: text("message").trim().to_owned(),
                    message_expression,
                    reason: text("reason").to_owned(),
                });
            }
        }
        compiled
    }

    fn annotations(&mut self, spec: &Value) -> Vec<(String, Program)> {
        /// As upstream.
        const EXPRESSION_BYTES_MAX: usize = 5 * 1024;
        let mut compiled = Vec::new();
        for (index, annotation) in items_at(spec, "/auditAnnotations").iter().enumerate() {
            let source = str_at(annotation, "/valueExpression").trim();
            let path = format!("spec.auditAnnotations[{index}].valueExpression");
            if source.is_empty() {
                self.errors.push(FieldError::required(path, "valueExpression is not specified"));
            } else if source.len() > EXPRESSION_BYTES_MAX {
                let detail = format!("must not exceed {EXPRESSION_BYTES_MAX} bytes in length");
                self.errors.push(FieldError::required(path, detail));
            } else {
                let names = self.environment.clone();
                if let Some(program) = self.compile(path, source, &names, &[Type::String, Type::Null]) {
                    compiled.push((str_at(annotation, "/key").to_owned(), program));
                }
            }
        }
        compiled
    }

    fn mutations(&mut self, spec: &Value) -> Vec<Mutation> {
        let names = std::mem::take(&mut self.environment).with_objects();
        let object = penstock_expressions::made_type("Object");
        let patch = Type::list(penstock_expressions::made_type("JSONPatch"));
        let mut compiled = Vec::new();
        for (index, mutation) in items_at(spec, "/mutations").iter().enumerate() {
            let (field, wanted) = match mutation["patchType"].as_str() {
                Some("ApplyConfiguration") => ("applyConfiguration", &object),
                Some("JSONPatch") => ("jsonPatch", &patch),
                _ => continue,
            };
            let path = format!("spec.mutations[{index}].{field}");
            if !mutation[field].is_object() {
                let detail =
                    format!("must be specified when patchType is {}", str_at(mutation, "/patchType"));
                self.errors.push(FieldError::required(path, detail));
                continue;
            }
            let source = mutation[field]["expression"].as_str().unwrap_or_default().trim();
            let path = format!("{path}.expression");
            if source.is_empty() {
                self.errors.push(FieldError::required(path, ""));
                continue;
            }
            let program = self.compile(path, source, &names, std::slice::from_ref(wanted));
            compiled.extend(program.map(|program| match field {
                "jsonPatch" => Mutation::JsonPatch(program),
                _ => Mutation::Apply(program),
            }));
        }
        compiled
    }
}

/// What is wrong with how a policy's parts are named.
pub(super) fn names_of_parts(policy: &Value) -> Vec<FieldError> {
    let spec = &policy["spec"];
    let mut errors = Vec::new();
    let (conditions, mut seen) = (items_at(spec, "/matchConditions"), HashSet::new());
    if conditions.len() > 64 {
        errors.push(FieldError::too_many("spec.matchConditions", conditions.len(), 64));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let (name, path) = (str_at(condition, "/name"), format!("spec.matchConditions[{index}].name"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if let Some(why) = crate::registry::meta::names::qualified_name(name) {
            errors.push(FieldError::invalid(path, name, why));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
    for (index, variable) in items_at(spec, "/variables").iter().enumerate() {
        let (name, path) = (str_at(variable, "/name"), format!("spec.variables[{index}].name"));
        if name.trim().is_empty() {
            errors.push(FieldError::required(path, "name is not specified"));
        } else if !penstock_expressions::is_identifier(name) {
            errors.push(FieldError::invalid(path, name, "must be a valid CEL identifier"));
        }
    }
    errors
}
