//! Parameters of operations, by name.

use serde_json::{Value, json};

/// Query parameters of POST and PUT.
pub const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
/// Query parameters of PATCH.
pub const PATCH: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];
/// Query parameters of DELETE on one object.
pub const DELETE: [&str; 5] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
/// Query parameters of lists, watches and collection deletes.
pub const LIST: [&str; 10] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

/// A query parameter.
pub fn query(name: &str) -> Value {
    let (kind, description) = match name {
        "allowWatchBookmarks" => {
            ("boolean", "Ask for BOOKMARK events. Ignored by requests that are not watches.")
        }
        "continue" => ("string", "Token of the next page, as the previous page gave it."),
        "dryRun" => ("string", "Do everything but store the result. The only valid value is All."),
        "fieldManager" => {
            ("string", "Who makes this change, for field ownership. At most 128 printable characters.")
        }
        "fieldSelector" => ("string", "Restrict the objects by their fields."),
        "fieldValidation" => {
            ("string", "What to do about unknown and duplicate fields: Ignore, Warn (default) or Strict.")
        }
        "force" => ("boolean", "Take over fields that other managers own. Only for apply patches."),
        "gracePeriodSeconds" => ("integer", "Seconds until the object is removed; 0 removes it at once."),
        "labelSelector" => ("string", "Restrict the objects by their labels."),
        "limit" => ("integer", "Objects on a page at most."),
        "orphanDependents" => ("boolean", "Deprecated: use propagationPolicy."),
        "pretty" => ("string", "If 'true', the answer is indented."),
        "propagationPolicy" => ("string", "What happens to dependents: Orphan, Background or Foreground."),
        "resourceVersion" => ("string", "The version the request is about; see resourceVersionMatch."),
        "resourceVersionMatch" => {
            ("string", "How resourceVersion is applied to lists: Exact or NotOlderThan.")
        }
        "sendInitialEvents" => {
            ("boolean", "Begin a watch with the present state and a bookmark that ends it.")
        }
        "timeoutSeconds" => ("integer", "How long a list or watch may last."),
        "watch" => ("boolean", "Stream changes instead of listing."),
        _ => ("boolean", ""),
    };
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

/// A path parameter.
pub fn in_path(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
           "schema": {"type": "string", "uniqueItems": true}})
}
