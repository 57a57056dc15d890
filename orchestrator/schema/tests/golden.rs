//! Bodies that kubectl 1.32 (client-go) sent on the wire, and the JSON it prints for the same objects.

use std::fs;
use std::path::Path;

use penstock_schema::{Schema, json, protobuf};

#[test]
fn what_kubectl_sends_as_protobuf_is_what_it_prints_as_json() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut compared = 0;
    for entry in fs::read_dir(&dir).expect("the golden files") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "pb") {
            continue;
        }
        let name = path.display();
        let envelope = protobuf::open_envelope(&fs::read(&path).expect("bytes")).expect("an envelope");
        let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
        let ty = Schema::builtin().kind(group, version, &envelope.kind).expect("a built-in kind");
        let decoded = protobuf::decode(&ty, &envelope.raw).unwrap_or_else(|e| panic!("{name}: {e}"));

        let printed = fs::read(path.with_extension("json")).expect("the JSON beside it");
        let printed = json::decode(&ty, &printed).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(printed.issues, [], "{name}");
        let mut wanted = printed.object;
        let fields = wanted.as_object_mut().expect("an object");
        assert_eq!(fields.remove("apiVersion").expect("apiVersion"), envelope.api_version.as_str(), "{name}");
        assert_eq!(fields.remove("kind").expect("kind"), envelope.kind.as_str(), "{name}");
        assert_eq!(decoded, wanted, "{name}");

        let raw = protobuf::encode(&ty, &decoded).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(protobuf::decode(&ty, &raw).expect("our own bytes"), decoded, "{name}");
        compared += 1;
    }
    assert!(compared >= 13, "only {compared} files compared");
}
