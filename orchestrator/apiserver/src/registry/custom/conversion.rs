//! Conversion by webhook: objects of one version in another, as a server of the definition's author makes them.
//!
//! Objects of a kind with a converter lie in the store in the version they were written in; whoever reads them in
//! another asks. [`question`] and [`answer`] are pure; [`Converter::convert`] asks, many objects at a time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admission::webhooks::configuration;
use crate::error::ApiError;
use crate::outbound::Target;
use crate::outbound::exchange::Limits;
use crate::registry::Registry;
use crate::registry::object::{items_at, str_at};

/// Objects in one question. A longer list takes several.
const OBJECTS_MAX: usize = 500;
/// A converter that does not answer within this time fails the request.
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Whom a definition names for its conversions.
pub(crate) struct Converter {
    target: Option<(Target, String)>,
    review_version: Option<&'static str>,
    /// Stands for everything a converted object depends on.
    pub fingerprint: String,
}

// === impl Converter ===

impl Converter {
    /// The converter of a CustomResourceDefinition, if its versions need one.
    pub fn of(crd: &Value, fingerprint: String) -> Option<Self> {
        let conversion = &crd["spec"]["conversion"];
        if str_at(conversion, "/strategy") != "Webhook" {
            return None;
        }
        let versions = items_at(conversion, "/webhook/conversionReviewVersions").iter();
        let known = |version: &Value| ["v1", "v1beta1"].into_iter().find(|known| version == known);
        Some(Self {
            target: configuration::target(&conversion["webhook"]["clientConfig"]),
            review_version: versions.filter_map(known).next(),
            fingerprint,
        })
    }

    /// Objects in another version, in their order. None of them may be in that version already.
    pub async fn convert(
        &self,
        registry: &Registry,
        api_version: &str,
        objects: &[Value],
    ) -> Result<Vec<Value>, ApiError> {
        let mut converted = Vec::with_capacity(objects.len());
        for some in objects.chunks(OBJECTS_MAX) {
            let made = self.ask(registry, api_version, some).await.map_err(|why| {
                let (said, kind) = (str_at(&some[0], "/apiVersion"), str_at(&some[0], "/kind"));
                ApiError::new(500, "", format!("conversion webhook for {said}, Kind={kind} {why}"))
            })?;
            converted.extend(made);
        }
        Ok(converted)
    }

    async fn ask(
        &self,
        registry: &Registry,
        api_version: &str,
        objects: &[Value],
    ) -> Result<Vec<Value>, String> {
        let failed = |why: &dyn std::fmt::Display| format!("failed: {why}");
        let review_version =
            self.review_version.ok_or_else(|| failed(&"no supported conversion review versions"))?;
        let (target, path) = self
            .target
            .as_ref()
            .ok_or_else(|| failed(&"the definition names no server that could be asked"))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = question(&uid, review_version, api_version, objects);
        let limits = Limits { timeout: TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
        let asked = registry.outbound().exchange(registry, target, path, &question, limits).await;
        let review = asked.map_err(|e| failed(&e))?;
        answer(review, &uid, review_version, api_version, objects)
    }
}

fn question(uid: &str, review_version: &str, api_version: &str, objects: &[Value]) -> Value {
    json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{review_version}"),
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
    })
}

/// The objects of an answer, each under the metadata it had; says what is wrong with it otherwise.
fn answer(
    mut review: Value,
    uid: &str,
    review_version: &str,
    api_version: &str,
    asked: &[Value],
) -> Result<Vec<Value>, String> {
    if review_version == "v1" {
        let (said, kind) = (str_at(&review, "/apiVersion"), str_at(&review, "/kind"));
        if (said, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
            return Err(format!(
                "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {said}, Kind={kind}"
            ));
        }
    }
    let Some(response) = review.get_mut("response").filter(|response| response.is_object()) else {
        return Err("failed: no response provided".into());
    };
    let said = str_at(response, "/uid");
    if review_version == "v1" && said != uid {
        return Err(format!("failed: expected response.uid={uid:?}, got {said:?}"));
    }
    let status = str_at(response, "/result/status");
    if status != "Success" {
        return Err(match str_at(response, "/result/message") {
            "" => format!("failed: response.result.status was '{status}', not 'Success'"),
            message => format!("failed: {message}"),
        });
    }
    let Value::Array(converted) = response["convertedObjects"].take() else {
        return Err(format!("returned 0 objects, expected {}", asked.len()));
    };
    if converted.len() != asked.len() {
        return Err(format!("returned {} objects, expected {}", converted.len(), asked.len()));
    }
    let settled = converted.into_iter().zip(asked).enumerate().map(|(index, (converted, original))| {
        settle(converted, original, api_version)
            .map_err(|why| format!("returned invalid converted object at index {index}: {why}"))
    });
    settled.collect()
}

/// A converter changes what is in an object, its labels and annotations; who it is stays.
fn settle(mut converted: Value, original: &Value, api_version: &str) -> Result<Value, String> {
    let said = str_at(&converted, "/apiVersion");
    if said != api_version {
        return Err(format!("invalid groupVersion (expected {api_version}, received {said})"));
    }
    let (was, is) = (str_at(original, "/kind"), str_at(&converted, "/kind"));
    if was != is {
        return Err(format!("invalid kind (expected {was}, received {is})"));
    }
    for (field, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let pointer = format!("/metadata/{field}");
        let (was, is) = (str_at(original, &pointer), str_at(&converted, &pointer));
        if was != is {
            return Err(format!("must have the same {word}: {was} != {is}"));
        }
    }
    let Some(made) = converted.get("metadata") else {
        return Err("missing metadata in converted object".into());
    };
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let texts = made.get(field).filter(|value| !value.is_null());
        let Some(metadata) = metadata.as_object_mut() else { continue };
        match texts {
            None => metadata.remove(field),
            Some(Value::Object(map)) if map.values().all(Value::is_string) => {
                metadata.insert(field.into(), Value::Object(map.clone()))
            }
            Some(_) => return Err(format!("metadata.{field}: must be a map of strings")),
        };
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Value {
        json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "uid": "u", "resourceVersion": "7",
            "labels": {"a": "b"}}})
    }

    fn told(objects: Value, status: &str) -> Result<Vec<Value>, String> {
        let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "q", "result": {"status": status}, "convertedObjects": objects}});
        answer(review, "q", "v1", "g/v2", &[object()])
    }

    #[test]
    fn only_labels_and_annotations_of_the_metadata_are_the_converters() {
        let made = json!([{"apiVersion": "g/v2", "kind": "K", "spec": 1,
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "8", "annotations": {"x": "y"}}}]);
        let made = told(made, "Success").unwrap();
        assert_eq!(
            made[0]["metadata"],
            json!({"name": "n", "uid": "u", "resourceVersion": "7", "annotations": {"x": "y"}})
        );
        assert_eq!(made[0]["spec"], 1);
    }

    #[test]
    fn answers_that_are_none_say_why() {
        assert!(told(json!([]), "Success").unwrap_err().contains("returned 0 objects, expected 1"));
        assert!(
            told(json!([object()]), "Success").unwrap_err().contains("invalid groupVersion (expected g/v2")
        );
        assert!(told(json!([]), "Failure").unwrap_err().contains("was 'Failure', not 'Success'"));
        let renamed = json!([{"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "x", "uid": "u"}}]);
        assert!(told(renamed, "Success").unwrap_err().contains("must have the same name: n != x"));
        assert!(
            answer(json!({}), "q", "v1", "g/v2", &[object()])
                .unwrap_err()
                .contains("expected webhook response")
        );
    }
}
