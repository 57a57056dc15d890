//! Sources and values that mean harm: nothing panics, hangs, or takes more than it is given.

use std::time::{Duration, Instant};

use penstock_expressions::{
    Budget, DEPTH_MAX, Environment, EvaluationError, Type, Value, Variables, compile,
};
use proptest::prelude::*;
use serde_json::json;

fn environment() -> Environment {
    Environment::default().variable("object", Type::Dyn).with_objects()
}

/// Evaluates on a stack as small as a thread of the server's has, and within a time that only a hang exceeds.
fn outcome(source: String) -> Result<Result<(), EvaluationError>, String> {
    let started = Instant::now();
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let object = json!({"list": (0..1000).collect::<Vec<_>>(), "text": "a".repeat(100_000)});
        let program = compile(&source, &environment()).map_err(|error| error.to_string())?;
        let variables = Variables::default().with("object", Value::of(&object));
        Ok(program.evaluate(&variables, &mut Budget::default()).map(|_| ()))
    });
    let result = thread.unwrap().join().expect("nothing panics");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    result
}

#[test]
fn depth_bombs_are_refused() {
    let deep = 50_000;
    for source in [
        "(".repeat(deep),
        "[".repeat(deep),
        "{1:".repeat(deep),
        "!".repeat(deep),
        "-".repeat(deep),
        format!("{}1{}", "(".repeat(deep), ")".repeat(deep)),
        format!("1{}", "+1".repeat(deep / 2)),
        format!("object{}", ".a".repeat(deep / 2)),
        format!("object{}", "[0]".repeat(deep / 2)),
        "true?".repeat(deep / 5) + "1",
        format!("{}1", "true?1:".repeat(deep / 7)),
        "[1].map(x,".repeat(deep / 10),
        "a{b:".repeat(deep / 4),
        "size(".repeat(deep / 5),
    ] {
        assert!(outcome(source.clone()).is_err(), "{}", &source[..20]);
    }
}

#[test]
fn the_deepest_expressions_that_are_taken_are_evaluated() {
    let deep = DEPTH_MAX - 2;
    for source in [
        format!("1{}", "+1".repeat(deep)),
        format!("{}1{}", "[".repeat(deep), "]".repeat(deep)),
        format!("{}true{}", "[true].all(x,".repeat(deep / 2), ")".repeat(deep / 2)),
        format!("{}1", "false?1:".repeat(deep)),
        format!("{}1{}", "cel.bind(x,1,".repeat(deep / 2), ")".repeat(deep / 2)),
        format!("{}'a'{}", "string(".repeat(deep), ")".repeat(deep)),
        format!("true{}", "&&true".repeat(5_000)),
    ] {
        assert_eq!(outcome(source.clone()), Ok(Ok(())), "{}", &source[..20]);
    }
}

#[test]
fn what_grows_without_end_costs_too_much() {
    let doubled = |start: &str, times: usize| {
        let body = "cel.bind(x, x + x, ".repeat(times);
        format!("cel.bind(x, {start}, {body} x{})", ")".repeat(times))
    };
    for source in [
        doubled("'aaaaaaaaaa'", 100),
        doubled("[1]", 100),
        doubled("b'aaaaaaaaaa'", 100),
        "object.list.all(a, object.list.all(b, object.list.all(c, true)))".to_owned(),
        "lists.range(9223372036854775807)".to_owned(),
        "object.list.map(a, object.text.replace('a', object.text))".to_owned(),
        "object.list.map(a, object.text).join(object.text)".to_owned(),
        "object.list.map(a, object.text.matches('(a|b|ab)*c'))".to_owned(),
        "object.list.map(a, object.text + string(a)).exists(t, t.matches(t))".to_owned(),
        "object.list.all(a, object.list == object.list)".to_owned(),
        "object.list.map(a, object.list).flatten().distinct()".to_owned(),
        "object.list.map(a, '%s%s%s%s'.format([object.text, object.text, object.text, object.text]))"
            .to_owned(),
    ] {
        assert_eq!(outcome(source.clone()), Ok(Err(EvaluationError::CostExceeded)), "{source}");
    }
}

#[test]
fn too_long_sources_and_patterns_are_refused() {
    let error = outcome(format!("'{}'", "a".repeat(200_000))).unwrap_err();
    assert!(error.contains("expression size exceeds limit"), "{error}");
    let error = outcome("'a'.matches('((a{1000}){1000}){1000}')".into()).unwrap_err();
    assert!(error.contains("invalid matches argument"), "{error}");
    assert!(outcome("'%.999999999f'.format([1.0])".into()).unwrap().is_err());
}

#[test]
fn a_set_pays_from_one_budget() {
    let program = compile("object.all(x, x >= 0)", &environment()).unwrap();
    let object = json!((0..10_000).collect::<Vec<_>>());
    let variables = Variables::default().with("object", Value::of(&object));
    let mut budget = Budget::new(100_000);
    assert_eq!(program.holds(&variables, &mut budget), Ok(true));
    assert!(budget.left() < 60_000, "{}", budget.left());
    assert_eq!(program.holds(&variables, &mut budget), Err(EvaluationError::CostExceeded));
    assert_eq!(program.holds(&variables, &mut budget), Err(EvaluationError::CostExceeded));
}

/// Pieces that are likely to make something that parses.
const PIECES: &[&str] = &[
    "object",
    ".",
    "list",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "1",
    "-1",
    "'a'",
    "\"b\"",
    "2u",
    "1.5",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&&",
    "||",
    "!",
    "?",
    ":",
    ",",
    "==",
    "<",
    "in",
    "null",
    "true",
    "x",
    "all(x, ",
    "map(x, ",
    "has(",
    "size()",
    "matches('a')",
    "Object",
    "spec",
    "cel.bind(x, ",
    "optional.of(",
    "duration('1s')",
    "timestamp(0)",
    " ",
    "b'x'",
    "`a`",
    "ip('::1')",
    "quantity('1')",
    "format([1])",
    "split('')",
    "sort()",
    "\\",
    "é",
    "0x",
    "'",
    "9223372036854775807",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_compiler_panic(source in "\\PC{0,200}") {
        let _ = outcome_here(&source);
    }

    #[test]
    fn no_pieces_make_compiler_or_evaluation_panic(picks in prop::collection::vec(0..PIECES.len(), 0..30)) {
        let source: String = picks.into_iter().map(|pick| PIECES[pick]).collect();
        let _ = outcome_here(&source);
    }

    #[test]
    fn string_functions_take_any_position(text in "\\PC{0,12}", part in "\\PC{0,3}", a in -3i64..15, b in -3i64..15) {
        let object = json!({"t": text, "p": part, "a": a, "b": b});
        for source in [
            "object.t.substring(object.a, object.b)", "object.t.indexOf(object.p, object.a)",
            "object.t.lastIndexOf(object.p, object.a)", "object.t.split(object.p, object.a)",
            "object.t.replace(object.p, 'x', object.a)", "object.t.charAt(object.a)", "object.t.format([object.a, object.p])",
        ] {
            let program = compile(source, &environment()).unwrap();
            let variables = Variables::default().with("object", Value::of(&object));
            let _ = program.evaluate(&variables, &mut Budget::default());
        }
    }
}

fn outcome_here(source: &str) -> Result<(), String> {
    let object = json!({"list": [1, "a", null, {"x": 1.5}], "spec": {"a": 1}});
    let program = compile(source, &environment()).map_err(|error| error.to_string())?;
    let variables = Variables::default().with("object", Value::of(&object));
    let value = program.evaluate(&variables, &mut Budget::default()).map_err(|error| error.to_string())?;
    value.to_json().map(|_| ()).map_err(|error| error.to_string())
}
