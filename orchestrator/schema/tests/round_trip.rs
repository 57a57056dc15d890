//! Every kind survives JSON → object → protobuf → object → YAML, for generated objects.

#[path = "generate/generate.rs"]
mod generate;

use generate::Source;
use penstock_schema::{Schema, Value, check, json, protobuf, yaml};
use proptest::prelude::*;

/// Kinds upstream serves as JSON only.
const JSON_ONLY: &[&str] = &["Table"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_survives_json_and_protobuf(seed in any::<u64>()) {
        let schema = Schema::builtin();
        let mut source = Source(seed);
        for gvk in schema.kinds() {
            let ty = schema.kind(&gvk.group, &gvk.version, &gvk.kind).expect("a listed kind");
            let object = generate::object(&ty, &mut source);
            let text = serde_json::to_vec(&object).expect("a value");
            let decoded = json::decode(&ty, &text).unwrap_or_else(|e| panic!("{gvk:?}: {e}"));
            prop_assert_eq!(&decoded.issues, &vec![], "{:?}", gvk);
            prop_assert_eq!(&decoded.object, &object, "{:?}", gvk);
            if JSON_ONLY.contains(&gvk.kind.as_str()) {
                continue;
            }
            let raw = protobuf::encode(&ty, &object).unwrap_or_else(|e| panic!("{gvk:?}: {e}"));
            let back = protobuf::decode(&ty, &raw).unwrap_or_else(|e| panic!("{gvk:?}: {e}"));
            prop_assert_eq!(back, object, "{:?}", gvk);
        }
    }

    #[test]
    fn every_kind_survives_yaml_and_conforms(seed in any::<u64>()) {
        let schema = Schema::builtin();
        let mut source = Source(seed);
        for gvk in schema.kinds() {
            let ty = schema.kind(&gvk.group, &gvk.version, &gvk.kind).expect("a listed kind");
            let object = generate::object(&ty, &mut source);
            let text = yaml::encode(&object).expect("YAML");
            let decoded = yaml::decode(&ty, text.as_bytes()).unwrap_or_else(|e| panic!("{gvk:?}: {e}\n{text}"));
            prop_assert_eq!(&decoded.object, &object, "{:?}\n{}", gvk, text);
            let mut again = object.clone();
            prop_assert_eq!(check::conform(&ty, &mut again), Ok(vec![]));
            prop_assert_eq!(again, object);
        }
    }

    #[test]
    fn truncated_and_flipped_protobuf_never_panics(seed in any::<u64>(), cut in any::<u16>(), flip in any::<u8>()) {
        let schema = Schema::builtin();
        let ty = schema.kind("", "v1", "Pod").expect("Pod");
        let mut raw = protobuf::encode(&ty, &generate::object(&ty, &mut Source(seed))).expect("protobuf");
        let length = raw.len().max(1);
        raw.truncate(usize::from(cut) % length);
        if let Some(byte) = raw.get_mut(usize::from(flip)) {
            *byte ^= flip;
        }
        let _ = protobuf::decode(&ty, &raw);
        let mut enveloped = b"k8s\0".to_vec();
        enveloped.extend_from_slice(&raw);
        let _ = protobuf::open_envelope(&enveloped);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let schema = Schema::builtin();
        let ty = schema.kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("CRD");
        let _ = protobuf::decode(&ty, &bytes);
        let _ = json::decode(&ty, &bytes);
        let _ = yaml::decode(&ty, &bytes);
    }
}

#[test]
fn an_envelope_opens_to_what_was_sealed() {
    let sealed = protobuf::seal_envelope("apps/v1", "Deployment", b"\x0a\x00");
    let opened = protobuf::open_envelope(&sealed).expect("an envelope");
    assert_eq!((opened.api_version.as_str(), opened.kind.as_str()), ("apps/v1", "Deployment"));
    assert_eq!(opened.raw, b"\x0a\x00");
}

#[test]
fn a_namespace_of_client_go_reads_as_its_json() {
    // What `kubectl create namespace demo` sends: every non-pointer scalar is present as its zero.
    let mut meta = vec![0x0a, 4];
    meta.extend_from_slice(b"demo");
    meta.extend_from_slice(&[0x12, 0, 0x1a, 0, 0x22, 0, 0x2a, 0, 0x32, 0, 0x38, 0, 0x42, 0]);
    let mut raw = vec![0x0a, meta.len() as u8];
    raw.extend_from_slice(&meta);
    raw.extend_from_slice(&[0x12, 0, 0x1a, 2, 0x0a, 0]);
    let ty = Schema::builtin().kind("", "v1", "Namespace").expect("Namespace");
    let object = protobuf::decode(&ty, &raw).expect("a namespace");
    assert_eq!(object, serde_json::json!({"metadata": {"name": "demo"}, "spec": {}, "status": {}}));
}

#[test]
fn inlined_messages_are_flat_in_json_and_nested_on_the_wire() {
    let ty = Schema::builtin().by_name("io.k8s.api.core.v1.Probe").expect("Probe");
    let object: Value = serde_json::json!({"tcpSocket": {"port": 80}, "periodSeconds": 5});
    let raw = protobuf::encode(&ty, &object).expect("protobuf");
    // handler = 1 { tcpSocket = 3 { port = 1 { type = 1: 0, intVal = 2: 80, strVal = 3: "" } } }, periodSeconds = 4
    assert_eq!(raw, [0x0a, 10, 0x1a, 8, 0x0a, 6, 8, 0, 16, 80, 26, 0, 0x20, 5]);
    assert_eq!(protobuf::decode(&ty, &raw).expect("a probe"), object);
}
