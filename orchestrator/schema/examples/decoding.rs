//! How fast the engine is on a Deployment, one core: `cargo run --release -p penstock-schema --example decoding`.

use std::hint::black_box;
use std::time::Instant;

use penstock_schema::{Schema, check, defaults, json, openapi, protobuf};

const ROUNDS: u32 = 20_000;

fn time(what: &str, mut work: impl FnMut()) {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    println!("{what:<28} {:>9.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn main() {
    let before = resident_kib();
    let start = Instant::now();
    let schema = Schema::builtin();
    println!("table parsed in {:?}, {} KiB resident more", start.elapsed(), resident_kib() - before);
    let ty = schema.kind("apps", "v1", "Deployment").expect("Deployment");
    let text = include_bytes!("../tests/golden/deployment.json");
    let object = {
        let mut object = json::decode(&ty, text).expect("a deployment").object;
        defaults::apply(&ty, &mut object);
        object
    };
    let full = serde_json::to_vec(&object).expect("JSON");
    let raw = protobuf::encode(&ty, &object).expect("protobuf");
    println!("a Deployment: {} bytes of JSON, {} of protobuf", full.len(), raw.len());
    time("JSON to Value (serde_json)", || {
        black_box(serde_json::from_slice::<serde_json::Value>(black_box(&full)).expect("JSON"));
    });
    time("JSON decode by schema", || drop(black_box(json::decode(&ty, black_box(&full)))));
    time("protobuf decode", || drop(black_box(protobuf::decode(&ty, black_box(&raw)))));
    time("protobuf encode", || drop(black_box(protobuf::encode(&ty, black_box(&object)))));
    time("defaults", || {
        let mut object = object.clone();
        defaults::apply(&ty, black_box(&mut object));
    });
    time("conform", || {
        let mut object = object.clone();
        let _ = black_box(check::conform(&ty, &mut object));
    });
    time("clone", || drop(black_box(object.clone())));
    let start = Instant::now();
    let all: Vec<_> = schema.structs().collect();
    println!(
        "OpenAPI of everything: {} components in {:?}",
        openapi::v3_schemas(&all).len(),
        start.elapsed()
    );
}
