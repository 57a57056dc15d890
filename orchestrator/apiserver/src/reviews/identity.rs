//! Reviews of who someone is.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::authn;
use crate::authz::rules::strings;
use crate::error::{ApiError, FieldError};
use crate::registry::User;
use crate::server::Inner;

/// `UserInfo` of a user; empty parts are left out.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The status of a TokenReview.
pub(crate) async fn review_token(inner: &Inner, review: &Value) -> Result<Value, ApiError> {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        let missing =
            FieldError::required("spec.token", "token is required for TokenReview in authentication");
        return Err(ApiError::invalid("authentication.k8s.io", "TokenReview", "", vec![missing]));
    }
    let mut audiences = strings(review.pointer("/spec/audiences"));
    if audiences.is_empty() {
        audiences = inner.issuer.audiences().to_vec();
    }
    let now = Timestamp::now().as_second();
    Ok(match inner.authenticator.bearer().review(token, &audiences, now).await {
        Ok((user, good)) => {
            json!({"authenticated": true, "user": user_info(&authn::authenticated(user)), "audiences": good})
        }
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}
