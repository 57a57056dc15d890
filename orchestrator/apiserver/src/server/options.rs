//! Query parameters as the registry's options, with upstream's errors for malformed ones.
//!
//! Pure. Must not know verbs or kinds; what a combination of options means is the registry's business.

use std::num::IntErrorKind;
use std::time::Duration;

use super::query::Query;
use crate::error::{ApiError, FieldError};
use crate::registry::meta::managers;
use crate::registry::{Context, DeleteOptions, FieldValidation, ListOptions, User};

/// Options of `list`, `watch` and `deletecollection`.
pub fn list_options(query: &Query) -> Result<ListOptions, ApiError> {
    let owned = |key: &str| query.text(key).map(str::to_owned);
    Ok(ListOptions {
        label_selector: owned("labelSelector"),
        field_selector: owned("fieldSelector"),
        resource_version: owned("resourceVersion"),
        resource_version_match: owned("resourceVersionMatch"),
        limit: integer(query, "limit")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        continue_token: owned("continue"),
        send_initial_events: query.optional_flag("sendInitialEvents"),
        allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
        timeout_seconds: integer(query, "timeoutSeconds")?
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n > 0),
    })
}

/// Options of `delete` given in the query. A body's options replace them.
pub fn delete_options(query: &Query) -> Result<DeleteOptions, ApiError> {
    let mut options = DeleteOptions {
        grace_period_seconds: integer(query, "gracePeriodSeconds")?,
        propagation_policy: query.text("propagationPolicy").map(str::to_owned),
        orphan_dependents: query.optional_flag("orphanDependents"),
        ..DeleteOptions::default()
    };
    options.dry_run = dry_run(query, "DeleteOptions")?;
    Ok(options)
}

/// The circumstances of a write: `kind` names upstream's options type (`CreateOptions` ...) in errors. `agent` is the
/// request's User-Agent, whose first part names the manager when the query does not.
pub fn write_context(
    user: User,
    query: &Query,
    kind: &str,
    agent: Option<&str>,
) -> Result<Context, ApiError> {
    let mut errors = Vec::new();
    let field_validation = match query.text("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Ignore") => FieldValidation::Ignore,
        Some("Strict") => FieldValidation::Strict,
        Some(other) => {
            errors.push(FieldError::not_supported("fieldValidation", other, &["Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        }
    };
    let manager = query.text("fieldManager");
    if let Some(manager) = manager {
        managers::check_name(manager, "fieldManager", &mut errors);
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", kind, "", errors));
    }
    let mut context = Context::new(user);
    context.dry_run = dry_run(query, kind)?;
    context.field_validation = field_validation;
    context.force = query.flag("force");
    context.field_manager = manager.map(str::to_owned).or_else(|| agent.map(managers::name_of_agent));
    Ok(context)
}

/// How long a watch may last. Spread when the client does not say, so that watches do not all return at once.
pub fn watch_timeout(asked_seconds: Option<u64>) -> Duration {
    const SECONDS_MIN: u64 = 1800;
    const SECONDS_MAX: u64 = 86_400;
    let seconds = asked_seconds.unwrap_or_else(|| SECONDS_MIN + rand::random_range(0..SECONDS_MIN));
    Duration::from_secs(seconds.min(SECONDS_MAX))
}

fn dry_run(query: &Query, kind: &str) -> Result<bool, ApiError> {
    let mut asked = false;
    for value in query.all("dryRun") {
        match value {
            "All" => asked = true,
            other => {
                let error = FieldError::not_supported("dryRun", other, &["All"]);
                return Err(ApiError::invalid("meta.k8s.io", kind, "", vec![error]));
            }
        }
    }
    Ok(asked)
}

/// An integer parameter, with Go's wording when it is none.
pub fn integer(query: &Query, key: &str) -> Result<Option<i64>, ApiError> {
    let Some(raw) = query.text(key) else {
        return Ok(None);
    };
    raw.parse::<i64>().map(Some).map_err(|e| {
        let why = match e.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {raw:?}: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_its_options() {
        let options =
            list_options(&Query::parse("limit=2&continue=abc&labelSelector=a%3Db&sendInitialEvents=true"))
                .unwrap();
        assert_eq!((options.limit, options.continue_token.as_deref()), (Some(2), Some("abc")));
        assert_eq!(
            (options.label_selector.as_deref(), options.send_initial_events),
            (Some("a=b"), Some(true))
        );
    }

    #[test]
    fn malformed_numbers_are_bad_requests() {
        let error = list_options(&Query::parse("limit=two")).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (400, "strconv.ParseInt: parsing \"two\": invalid syntax")
        );
    }

    #[test]
    fn unknown_modes_are_invalid() {
        for query in ["fieldValidation=Perhaps", "dryRun=Some"] {
            let error =
                write_context(User::default(), &Query::parse(query), "CreateOptions", None).unwrap_err();
            assert_eq!(error.code, 422, "{query}");
            assert!(error.message.contains("Unsupported value"), "{}", error.message);
        }
    }

    #[test]
    fn the_agent_names_the_manager_when_the_query_does_not() {
        let agent = Some("kubectl/v1.32 (linux)");
        let named = |q: &str| {
            write_context(User::default(), &Query::parse(q), "CreateOptions", agent).unwrap().field_manager
        };
        assert_eq!(named("").as_deref(), Some("kubectl"));
        assert_eq!(named("fieldManager=helm").as_deref(), Some("helm"));
    }

    #[test]
    fn watches_without_a_timeout_last_half_an_hour_to_an_hour() {
        for _ in 0..100 {
            let seconds = watch_timeout(None).as_secs();
            assert!((1800..3600).contains(&seconds), "{seconds}");
        }
        assert_eq!(watch_timeout(Some(7)).as_secs(), 7);
    }
}
