//! Golden tests: Services and slices in YAML in, what the kernel's maps hold out, and what their owners are told. One
//! small file a feature, in `golden/`. The same operations end in the same image in memory and in the kernel.
//!
//! After a wanted change: `INSTA_UPDATE=always cargo test -p node-agent golden`, and read the difference.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Node, Service as CoreService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use penstock_dataplane::{
    Applied, Choice, Forwarding, Limits, Listing, MapImage, MapSink, MemoryMaps, NodeFacts, Planner,
    ServiceChange,
};
use penstock_tests::dataplane::{Stand, object};
use penstock_tests::netns;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::cluster::Seen;

const NODE: &str = "node-1";

/// What a file comes to.
struct Case {
    name: String,
    services: Services,
}

fn cases() -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/desired/golden");
    let files = std::fs::read_dir(&folder).expect("the folder of golden files");
    let mut files: Vec<_> = files.map(|file| file.expect("a golden file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == "yaml"));
    files.sort();
    assert!(files.len() > 15, "the golden files are missing");
    files.iter().map(|file| case(file)).collect()
}

fn case(file: &std::path::Path) -> Case {
    let yaml = std::fs::read_to_string(file).expect("a golden file");
    let mut services = Services::new(Choice::Random, Forwarding::Snat);
    for document in serde_yaml::Deserializer::from_str(&yaml) {
        let object =
            Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = ObjectName { namespace: text("/metadata/namespace"), name: text("/metadata/name") };
        match text("/kind").as_str() {
            "Service" => services.see_service(Event::Is(name, typed::<CoreService>(object).into())),
            "EndpointSlice" => {
                let slice = typed::<Seen<EndpointSlice, SliceView>>(object);
                services.see_slice(Event::Is(name, slice.into_view()));
            }
            "Node" => services.see_own(Event::Is(name, typed::<Node>(object).into())),
            other => panic!("{}: a {other}?", file.display()),
        }
    }
    Case { name: file.file_stem().expect("a name").to_string_lossy().into_owned(), services }
}

fn typed<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object of the API")
}

fn facts() -> NodeFacts {
    let ip = |text: &str| text.parse().expect("an address");
    NodeFacts {
        node_addresses: ["10.240.0.11", "203.0.113.11", "fd00:240::11"].map(ip).to_vec(),
        never_translated: [ip("10.96.0.10")].into(),
    }
}

fn changes(services: &Services) -> Vec<ServiceChange> {
    services.names().map(|name| services.compile(name, NODE)).collect()
}

fn in_memory(changes: &[ServiceChange]) -> (MapImage, Planner) {
    let mut planner = Planner::recover(MapImage::default(), &Limits::default());
    changes.iter().for_each(|change| planner.change(change, &facts()));
    let mut maps = MemoryMaps::default();
    let Ok(()) = maps.write_all(&planner.take().operations);
    (maps.image, planner)
}

/// Everything that follows from a file, as text.
fn shown(services: &Services) -> String {
    let changes = changes(services);
    let (image, planner) = in_memory(&changes);
    let mut text = image.to_string();
    let keys = changes.iter().flat_map(ServiceChange::keys);
    for (key, address, port) in keys.flat_map(|key| planner.conflicts(&key)) {
        let Problem { reason, message } = Problem::conflict(address, port);
        let _ = writeln!(text, "{key} {reason}: {message}");
    }
    for name in services.names() {
        for Problem { reason, message } in services.problems(name) {
            let _ = writeln!(text, "{}/{} {reason}: {message}", name.namespace, name.name);
        }
        if let Some(HealthCheck { port, local_endpoints }) = services.compile_health(name, NODE) {
            let _ =
                writeln!(text, "{}/{} health check on {port}: {local_endpoints}", name.namespace, name.name);
        }
    }
    text
}

#[test]
fn every_golden_file_compiles_to_its_image() {
    for case in cases() {
        let shown = shown(&case.services);
        insta::with_settings!({
            snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_snapshot!(case.name, shown);
        });
    }
}

#[test]
fn the_kernel_s_maps_hold_what_the_maps_in_memory_hold() {
    let Some(object) = object() else { return };
    netns::isolated(|| {
        let stand = Stand::new(&object, "10.240.0.11", None).expect("a stand");
        let dataplane = stand.load();
        for case in cases() {
            let changes = changes(&case.services);
            let Applied { unplaced, .. } =
                dataplane.apply_changes(&changes, &facts(), Listing::Unfinished).expect("applied");
            assert!(unplaced.is_empty(), "{}: {unplaced:?}", case.name);
            let image = penstock_dataplane::observe_image(stand.bpffs()).expect("the kernel's maps");
            assert!(image.is_whole(), "{}", case.name);
            assert_eq!(image.to_string(), in_memory(&changes).0.to_string(), "{}", case.name);
            let gone = changes.into_iter().map(|change| ServiceChange { ports: BTreeMap::new(), ..change });
            let gone: Vec<_> = gone.collect();
            dataplane.apply_changes(&gone, &facts(), Listing::Unfinished).expect("removed");
        }
        let image = penstock_dataplane::observe_image(stand.bpffs()).expect("the kernel's maps");
        assert_eq!(image, MapImage::default(), "nothing is left");
    });
}
