//! Documents and patches that mean harm: nothing panics, hangs or takes more than it is given.
//!
//! `PENSTOCK_FUZZ_CASES` says how many of each kind are tried, for runs longer than CI's.

#[path = "generate/generate.rs"]
mod generate;

use generate::Source;
use penstock_schema::json::{BYTES_MAX, DEPTH_MAX};
use penstock_schema::{DecodeError, Quantity, Schema, TypeRef, Value, check, json, patch, protobuf, yaml};
use proptest::prelude::*;

/// Cases of each property; each decodes as every kind.
fn cases(of_ci: u32) -> ProptestConfig {
    let asked = std::env::var("PENSTOCK_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(of_ci), failure_persistence: None, ..ProptestConfig::default() }
}

fn kinds() -> Vec<TypeRef> {
    let schema = Schema::builtin();
    let kinds: Vec<_> = schema.kinds().cloned().collect();
    kinds.iter().filter_map(|k| schema.kind(&k.group, &k.version, &k.kind)).collect()
}

fn pod() -> TypeRef {
    Schema::builtin().kind("", "v1", "Pod").expect("Pod")
}

/// Decodes as everything a body may be, and encodes again what comes of it.
fn digest(ty: &TypeRef, bytes: &[u8]) {
    for decoded in [json::decode(ty, bytes), yaml::decode(ty, bytes)].into_iter().flatten() {
        let mut object = decoded.object;
        if check::conform(ty, &mut object).is_ok() {
            let _ = protobuf::encode(ty, &object);
            let _ = yaml::encode(&object);
        }
    }
    if let Ok(object) = protobuf::decode(ty, bytes) {
        let _ = protobuf::encode(ty, &object);
    }
}

/// JSON of any shape, with the names and values that decoders look at.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("status"),
        Just("containers"),
        Just("name"),
        Just("labels"),
        Just("ports"),
        Just("resources"),
        Just("limits"),
        Just("$patch"),
        Just("$retainKeys"),
        Just("$setElementOrder/containers"),
        Just("$deleteFromPrimitiveList/finalizers"),
        Just("finalizers"),
        Just("managedFields"),
        Just("fieldsV1"),
        Just("f:metadata"),
        Just("k:{\"name\":\"a\"}"),
        Just(""),
        Just("apiVersion"),
        Just("kind"),
        Just("creationTimestamp"),
        Just("template"),
        Just("a/b~c"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop_oneof![
            Just("delete"),
            Just("replace"),
            Just("merge"),
            Just("1Gi"),
            Just("2026-01-01T00:00:00Z")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Operations of JSON patches, well formed for the most part.
fn any_operations() -> impl Strategy<Value = Value> {
    let pointer = prop_oneof![
        Just(""),
        Just("/"),
        Just("/a"),
        Just("/a/b"),
        Just("/b"),
        Just("/l/0"),
        Just("/l/-"),
        Just("/l/99999999999"),
        Just("/~1"),
        Just("/~2"),
        Just("a"),
        Just("/spec/containers/0/name"),
        Just("/metadata"),
    ];
    let verb = prop_oneof![
        Just("add"),
        Just("remove"),
        Just("replace"),
        Just("move"),
        Just("copy"),
        Just("test"),
        Just("nothing"),
    ];
    let operation = (verb, pointer.clone(), pointer, any_json()).prop_map(
        |(op, path, from, value)| serde_json::json!({"op": op, "path": path, "from": from, "value": value}),
    );
    prop::collection::vec(operation, 0..12).prop_map(Value::from)
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn any_bytes_are_an_object_or_an_error_of_every_kind(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for ty in kinds() {
            digest(&ty, &bytes);
        }
        let _ = protobuf::open_envelope(&bytes);
        let sealed = [protobuf::PREFIX, &bytes].concat();
        if let Ok(envelope) = protobuf::open_envelope(&sealed) {
            prop_assert!(envelope.raw.len() <= bytes.len());
        }
    }

    #[test]
    fn any_json_is_an_object_or_an_error_of_every_kind(value in any_json()) {
        let text = value.to_string();
        for ty in kinds() {
            digest(&ty, text.as_bytes());
        }
    }

    #[test]
    fn damaged_protobuf_is_an_object_or_an_error_of_every_kind(
        seed in any::<u64>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        for ty in kinds() {
            let object = generate::object(&ty, &mut Source(seed));
            let Ok(mut raw) = protobuf::encode(&ty, &object) else { continue };
            if raw.is_empty() { continue }
            let at = at.index(raw.len());
            raw[at] ^= byte;
            if let Ok(object) = protobuf::decode(&ty, &raw) {
                let _ = protobuf::encode(&ty, &object);
            }
            raw.truncate(cut.index(raw.len()));
            let _ = protobuf::decode(&ty, &raw);
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn any_text_is_yaml_or_an_error(text in "[-\\[\\]{}:,&*!|>'\"%@`#?\\n \ta-c0-9~<]{0,120}") {
        digest(&pod(), text.as_bytes());
        let _ = yaml::decode_untyped(text.as_bytes());
        let _ = yaml::line_of_duplicate(&text, "a");
    }

    #[test]
    fn any_patch_is_applied_or_refused(seed in any::<u64>(), change in any_json(), operations in any_operations()) {
        let ty = pod();
        let mut object = generate::object(&ty, &mut Source(seed));
        object["a"] = serde_json::json!({"b": 1});
        object["l"] = serde_json::json!([1, 2]);
        let results = [
            patch::json(&object, &operations),
            patch::json(&object, &change),
            patch::strategic(&ty, &object, &change),
            Ok(patch::merge(&object, &change)),
        ];
        for mut patched in results.into_iter().flatten() {
            if check::conform(&ty, &mut patched).is_ok() {
                let _ = protobuf::encode(&ty, &patched);
            }
        }
    }

    #[test]
    fn any_text_is_a_quantity_or_none(text in "[-+]?[0-9.]{0,40}[eEkKMGTPinum]{0,3}[-+]?[0-9]{0,4}", other in "\\PC{0,12}") {
        for text in [text, other] {
            if let Some(quantity) = Quantity::parse(&text) {
                let shown = quantity.to_string();
                let again = Quantity::parse(&shown);
                prop_assert_eq!(again.map(Quantity::nanos), Some(quantity.nanos()), "{} is {}", text, shown);
                let _ = (quantity.plus(quantity), quantity.minus(quantity), quantity.rounded_up());
            }
            let _ = penstock_schema::duration::parse(&text);
        }
    }

    #[test]
    fn any_text_is_a_time_or_an_error(text in "[-+]?[0-9]{1,6}-[0-9]{1,3}-[0-9]{1,3}[Tt ][0-9:.]{0,20}([Zz]|[-+][0-9:]{0,6})?", other in "\\PC{0,40}") {
        for text in [text, other] {
            let object = serde_json::json!({"metadata": {"creationTimestamp": text}});
            digest(&pod(), object.to_string().as_bytes());
            let lease = Schema::builtin().kind("coordination.k8s.io", "v1", "Lease").expect("Lease");
            let object = serde_json::json!({"spec": {"renewTime": text}});
            digest(&lease, object.to_string().as_bytes());
        }
    }
}

/// As much of a stack as a thread of the server has.
fn on_a_servers_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work);
    thread.expect("a thread").join().expect("nothing panics");
}

#[test]
fn depth_bombs_are_refused() {
    on_a_servers_stack(|| {
        let ty = Schema::builtin();
        let custom = ty.kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("a kind");
        let revision = ty.kind("apps", "v1", "ControllerRevision").expect("a kind");
        for deep in [DEPTH_MAX + 1, 1000, BYTES_MAX / 8] {
            let lists = format!("{{\"metadata\":{}", "[".repeat(deep));
            let closed = format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep));
            let schemas = format!(
                "{{\"spec\":{{\"versions\":[{{\"schema\":{{\"openAPIV3Schema\":{}1",
                "{\"not\":".repeat(deep)
            );
            for text in [&lists, &closed, &schemas, &"[".repeat(deep), &"- ".repeat(deep), &"{".repeat(deep)]
            {
                let text = &text.as_bytes()[..text.len().min(BYTES_MAX)];
                assert!(yaml::decode_untyped(text).is_err());
                // What a type does not know is passed over, however deep.
                let is_known = text != closed.as_bytes();
                for ty in [&pod(), &custom] {
                    assert!(json::decode(ty, text).is_err() || !is_known);
                    assert!(yaml::decode(ty, text).is_err() || !is_known);
                }
            }
            let kept = format!("{{\"data\":{closed}}}");
            if kept.len() <= BYTES_MAX {
                assert!(json::decode(&revision, kept.as_bytes()).is_err());
                assert!(yaml::decode(&revision, kept.as_bytes()).is_err());
            }
        }
        // Protobuf nests by lengths: a schema whose `not` is a schema whose `not` is a schema.
        let mut raw = Vec::new();
        for _ in 0..20_000 {
            let mut outer = vec![(27 << 3 | 2) as u8, 1];
            let mut length = raw.len();
            while length >= 0x80 {
                outer.push((length & 0x7f) as u8 | 0x80);
                length >>= 7;
            }
            outer.push(length as u8);
            outer.extend(&raw);
            raw = outer;
        }
        let schema = ty
            .by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            .expect("a type");
        let refused = protobuf::decode(&schema, &raw).expect_err("too deep");
        assert!(matches!(refused, DecodeError::TooDeep { .. }), "{refused}");
    });
}

#[test]
fn aliases_do_not_unfold_without_end() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let wide = format!("a: &a [{}]\nb: [{}]\n", "1,".repeat(300_000), "*a,".repeat(300_000));
    let labels = format!(
        "metadata: {{annotations: &a {{{}}}}}\nspec: {{{}}}\n",
        (0..1000).map(|n| format!("k{n}: v,")).collect::<String>(),
        (0..3000).map(|n| format!("s{n}: *a,")).collect::<String>()
    );
    for text in [laughs, wide, labels] {
        assert!(yaml::decode_untyped(text.as_bytes()).is_err(), "{}", &text[..40]);
        // Of unknown fields nothing is kept, but reading them is work too.
        let _ = yaml::decode(&pod(), text.as_bytes());
    }
}

#[test]
fn numbers_beyond_their_fields_are_refused() {
    let huge = ["1e400", "-1e400", "99999999999999999999999999", "1.5", "2147483648", "-2147483649", "1e10"];
    for number in huge {
        let text = format!("{{\"spec\":{{\"priority\":{number}}}}}");
        assert!(json::decode(&pod(), text.as_bytes()).is_err(), "{number}");
        assert!(yaml::decode(&pod(), text.as_bytes()).is_err(), "{number}");
    }
    let digits = format!("{{\"spec\":{{\"priority\":{}}}}}", "9".repeat(1_000_000));
    assert!(json::decode(&pod(), digits.as_bytes()).is_err());
    let quantity = format!("{}e{}", "9".repeat(100_000), "9".repeat(100_000));
    let _ = Quantity::parse(&quantity);
    let text = serde_json::json!({"spec": {"overhead": {"cpu": quantity}}}).to_string();
    let _ = json::decode(&pod(), text.as_bytes());
}

#[test]
fn what_is_no_text_is_refused() {
    for bytes in
        [&b"{\"metadata\":{\"name\":\"\xff\xfe\"}}"[..], b"\xff", b"{\"\xc3\x28\":1}", b"\"\\ud800\""]
    {
        assert!(json::decode(&pod(), bytes).is_err());
        assert!(yaml::decode(&pod(), bytes).is_err());
    }
    // metadata (1) { name (1): two bytes that are no UTF-8 }
    assert!(protobuf::decode(&pod(), &[0x0a, 4, 0x0a, 2, 0xff, 0xfe]).is_err());
}

#[test]
fn the_last_of_duplicate_keys_counts_and_is_told() {
    let text = br#"{"spec":{"nodeName":"a","nodeName":"b"}}"#;
    let decoded = json::decode(&pod(), text).expect("an object");
    assert_eq!(decoded.object["spec"]["nodeName"], "b");
    assert_eq!(decoded.issues[0].to_string(), "duplicate field \"spec.nodeName\"");
}

#[test]
fn documents_beyond_the_limit_are_refused_unread() {
    let text = vec![b' '; BYTES_MAX + 1];
    for refused in [
        json::decode(&pod(), &text).expect_err("too large"),
        yaml::decode(&pod(), &text).expect_err("too large"),
        yaml::decode_untyped(&text).expect_err("too large"),
        protobuf::decode(&pod(), &text).expect_err("too large"),
    ] {
        assert!(matches!(refused, DecodeError::TooLarge { .. }), "{refused}");
    }
}
