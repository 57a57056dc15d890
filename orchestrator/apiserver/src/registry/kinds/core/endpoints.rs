//! Endpoints: the addresses behind a Service, in the old single-object form.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::kinds::discovery::endpointslices::port_errors;
use crate::registry::kinds::rules::addresses::special_address;
use crate::registry::object::items_at;
use crate::registry::strategy::Strategy;
use crate::tables::network::ENDPOINTS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Endpoints", "endpoints")
        .columns(ENDPOINTS)
        .short(&["ep"])
        .create_on_update()
        .strategy(Endpoints)
}

struct Endpoints;

impl Strategy for Endpoints {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, subset) in items_at(new, "/subsets").iter().enumerate() {
            let at = format!("subsets[{i}]");
            let lists = ["addresses", "notReadyAddresses"];
            if lists.iter().all(|list| items_at(subset, &format!("/{list}")).is_empty()) {
                errors.push(FieldError::required(
                    at.as_str(),
                    "must specify `addresses` or `notReadyAddresses`",
                ));
            }
            for list in lists {
                for (j, address) in items_at(subset, &format!("/{list}")).iter().enumerate() {
                    let text = address["ip"].as_str().unwrap_or_default();
                    let why = match text.parse() {
                        Ok(ip) => special_address(ip),
                        Err(_) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
                    };
                    if let Some(why) = why {
                        errors.push(FieldError::invalid(format!("{at}.{list}[{j}].ip"), text, why));
                    }
                }
            }
            port_errors(items_at(subset, "/ports"), &format!("{at}.ports"), &mut errors);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_that_are_no_other_host_s_and_bad_ports_are_refused_by_field() {
        let of = |subset: Value| {
            let found = Endpoints.validate(&json!({"subsets": [subset]}));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let good = json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]});
        assert_eq!(of(good), Vec::<String>::new());
        assert_eq!(of(json!({"notReadyAddresses": [{"ip": "fd00::1"}]})), Vec::<String>::new());
        let found = of(json!({"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 0}]}));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("subsets[0].addresses[0].ip"), "{found:?}");
        assert_eq!(of(json!({"ports": [{"port": 80}]})).len(), 1, "an empty subset says nothing");
    }
}
