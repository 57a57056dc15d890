//! The pure readers of requests, on texts that are made up: they give an answer for any, and a bounded one.

use http::Method;
use penstock_apiserver::User;
use penstock_apiserver::registry::selector::LabelSelector;
use penstock_apiserver::server::negotiate;
use penstock_apiserver::server::options::{delete_options, integer, list_options, write_context};
use penstock_apiserver::server::query::{Query, decode, encode};
use penstock_apiserver::server::request_info::RequestInfo;
use proptest::prelude::*;

fn cases(of_ci: u32) -> ProptestConfig {
    let asked = std::env::var("PENSTOCK_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(of_ci), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn any_header_is_negotiated_or_refused(
        header in "((application|text|\\*)/(json|yaml|\\*|vnd\\.kubernetes\\.protobuf)(;(as|g|v|q|stream)=[A-Za-z0-9.\"]{0,12}){0,4},? ?){0,6}",
        other in "\\PC{0,80}",
        pretty in any::<bool>(),
    ) {
        for text in [&header, &other] {
            let _ = negotiate::negotiate(Some(text), pretty);
            let _ = negotiate::body_format(Some(text));
            let _ = negotiate::accepts_gzip(Some(text));
            prop_assert!(negotiate::accepted(text).len() <= 32);
            let media = negotiate::media_type(text);
            prop_assert!(!media.contains(';'));
        }
    }

    #[test]
    fn any_path_and_query_is_a_request(
        path in "(/(api|apis|v1|namespaces|watch|pods|[a-z%0-9.]{0,6})){0,9}/?",
        query in "((limit|continue|watch|labelSelector|fieldSelector|dryRun|resourceVersion|gracePeriodSeconds)=[%a-z0-9,=+!-]{0,12}&?){0,5}",
        other in "\\PC{0,60}",
    ) {
        for query in [&query, &other] {
            let query = Query::parse(query);
            let _ = list_options(&query);
            let _ = delete_options(&query);
            let _ = integer(&query, "limit");
            let _ = write_context(User::default(), &query, "CreateOptions", Some(&other));
            for path in [&path, &other] {
                for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
                    let info = RequestInfo::parse(&method, path, &query);
                    prop_assert!(!info.is_resource || !info.version.is_empty() || path.contains("//") || path.contains('%'));
                    let _ = (info.is_long_running(), info.scope(), info.path_name());
                }
            }
        }
        prop_assert_eq!(decode(&encode(&other), false), other);
    }

    #[test]
    fn any_selector_selects_or_is_refused(
        selector in "(!?[a-z./]{0,6} ?(=|==|!=|>|<|in|notin)? ?\\(?[a-z0-9,]{0,6}\\)?,?){0,4}",
        other in "\\PC{0,60}",
        labels in prop::collection::btree_map("[a-z]{1,3}", "[a-z0-9]{0,3}", 0..4),
    ) {
        for text in [&selector, &other] {
            if let Ok(parsed) = LabelSelector::parse(text) {
                let _ = parsed.matches(&labels);
                prop_assert!(!parsed.is_empty() || text.trim().is_empty());
            }
        }
    }
}
