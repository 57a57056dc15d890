//! What expressions give, and what is said about those that are wrong.

use penstock_expressions::{
    Access, AccessRequest, Authorize, Budget, Decision, Environment, EvaluationError, Record, Type, Value,
    Variables, compile,
};
use serde_json::{Value as Json, json};

fn object() -> Json {
    json!({
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "tier": "front"}},
        "spec": {
            "replicas": 3, "ratio": 0.5, "paused": false, "nothing": null,
            "containers": [
                {"name": "a", "image": "reg.example.com/a:1", "ports": [80, 443]},
                {"name": "b", "image": "docker.io/b:2"},
            ],
        },
    })
}

fn environment() -> Environment {
    Environment::default().variable("object", Type::Dyn).variable("oldObject", Type::Dyn).with_objects()
}

fn evaluate(source: &str) -> Result<Json, String> {
    let object = object();
    let program = compile(source, &environment()).map_err(|error| error.to_string())?;
    let variables = Variables::default().with("object", Value::of(&object)).with("oldObject", Value::Null);
    let value = program.evaluate(&variables, &mut Budget::default()).map_err(|error| error.to_string())?;
    value.to_json().map_err(|error| error.to_string())
}

fn check(cases: &[(&str, Json)]) {
    for (source, wanted) in cases {
        assert_eq!(evaluate(source).as_ref(), Ok(wanted), "{source}");
    }
}

fn holds(sources: &[&str]) {
    for source in sources {
        assert_eq!(evaluate(source), Ok(Json::Bool(true)), "{source}");
    }
}

#[test]
fn operators_bind_as_in_the_language() {
    check(&[
        ("1 + 2 * 3 - 4 / 2", json!(5)),
        ("-(-3) - -2", json!(5)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("true || false && false", json!(true)),
        ("!true ? 'a' : 1 < 2 ? 'b' : 'c'", json!("b")),
        ("2 in [1, 2] && 'app' in object.metadata.labels", json!(true)),
        ("7 % 4", json!(3)),
        ("[1] + [2, 3]", json!([1, 2, 3])),
        ("'a' + \"b\" + r'\\n' + '''c\"'''", json!("ab\\nc\"")),
        ("0x1F + 1", json!(32)),
        ("1.5e3", json!(1500)),
        ("b'abc' == bytes('abc')", json!(true)),
        ("'\\u00e9\\x41\\101'", json!("éAA")),
    ]);
}

#[test]
fn what_decides_outweighs_errors() {
    holds(&[
        "object.missing == 1 || true",
        "!(object.missing == 1 && false)",
        "[1, 2].exists(x, x == 2 || object.missing)",
        "![1, 0].all(x, 1 / x == 5)",
        "object.spec.replicas < 3.5 && 3u <= object.spec.replicas",
        "object.spec.nothing == null && oldObject == null",
        "object.spec.ratio != 1",
    ]);
    assert_eq!(evaluate("object.missing == 1 || false"), Err("no such key: missing".into()));
}

#[test]
fn macros_go_over_lists_and_maps() {
    check(&[
        ("object.spec.containers.map(c, c.name)", json!(["a", "b"])),
        ("object.spec.containers.filter(c, has(c.ports)).map(c, c.name)", json!(["a"])),
        ("object.spec.containers.map(c, has(c.ports), c.name)", json!(["a"])),
        ("object.metadata.labels.all(key, key.size() > 2)", json!(true)),
        ("object.metadata.labels.exists_one(key, key == 'app')", json!(true)),
        ("[1, 2, 3].exists(i, i > 2)", json!(true)),
        ("['x', 'y'].all(i, v, i < 2 && v in ['x', 'y'])", json!(true)),
        ("[5, 6].transformList(i, v, i + v)", json!([5, 7])),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", json!({"b": 20})),
        ("['a', 'b'].transformMapEntry(i, v, {v: i})", json!({"a": 0, "b": 1})),
        ("cel.bind(x, 2 + 3, x * x)", json!(25)),
    ]);
}

#[test]
fn optional_values_are_passed_on() {
    check(&[
        ("object.?spec.?replicas.orValue(1)", json!(3)),
        ("object.?spec.?missing.more.orValue(1)", json!(1)),
        ("object.metadata.labels[?'app'].value()", json!("web")),
        ("[1][?4].hasValue()", json!(false)),
        ("optional.of(2).optMap(x, x + 1).orValue(0)", json!(3)),
        ("optional.none().or(optional.of(4)).value()", json!(4)),
        ("[?object.?missing, ?object.?metadata.name]", json!(["web"])),
        ("{?'a': object.?missing, 'b': 1}", json!({"b": 1})),
        ("optional.ofNonZeroValue('').hasValue()", json!(false)),
    ]);
    assert_eq!(evaluate("optional.none().value()"), Err("optional.none() dereference".into()));
}

#[test]
fn strings_are_searched_cut_and_printed() {
    check(&[
        ("'héllo'.size()", json!(5)),
        ("'tacocat'.charAt(3)", json!("o")),
        ("'hello mellow'.indexOf('ello', 2)", json!(7)),
        ("'hello mellow'.lastIndexOf('ello')", json!(7)),
        ("'hello mellow'.lastIndexOf('ello', 6)", json!(1)),
        ("'hello hello'.replace('he', 'we', 1)", json!("wello hello")),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        ("'abc'.split('')", json!(["a", "b", "c"])),
        ("'tacocat'.substring(0, 4)", json!("taco")),
        ("'  x '.trim() + 'TacO'.lowerAscii()", json!("xtaco")),
        ("['a', 'b'].join('-')", json!("a-b")),
        (
            "'%s is %d of %.2f, %x, %s'.format(['x', 3, 1.5, 255, [1, 2]])",
            json!("x is 3 of 1.50, ff, [1, 2]"),
        ),
        ("strings.quote('a\"b')", json!("\"a\\\"b\"")),
        ("'abc 123 45'.find('[0-9]+')", json!("123")),
        ("'abc 123 45'.findAll('[0-9]+')", json!(["123", "45"])),
        ("'abc 123 45'.findAll('[0-9]+', 1)", json!(["123"])),
        ("'foobar'.matches('^foo.*')", json!(true)),
        ("jsonpatch.escapeKey('a/b~c')", json!("a~1b~0c")),
    ]);
}

#[test]
fn lists_and_sets_have_their_functions() {
    check(&[
        ("[1, 3, 2].max() + [1, 3, 2].min() + [1, 3, 2].sum()", json!(10)),
        ("[2, 1, 3].sort()", json!([1, 2, 3])),
        ("[1, 1, 2].distinct()", json!([1, 2])),
        ("[[1], [2, 3]].flatten()", json!([1, 2, 3])),
        ("[1, 2, 3, 4].slice(1, 3).reverse()", json!([3, 2])),
        ("lists.range(3)", json!([0, 1, 2])),
        ("[1, 2].isSorted() && !['b', 'a'].isSorted()", json!(true)),
        ("['a', 'b'].indexOf('b')", json!(1)),
        ("sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 2], [2, 1, 1])", json!(true)),
        ("sets.intersects([1], [2])", json!(false)),
        ("[1, 2].first().value() + [1, 2].last().value()", json!(3)),
    ]);
}

#[test]
fn kubernetes_libraries_know_their_types() {
    holds(&[
        "quantity('1.5Gi').isGreaterThan(quantity('1Gi')) && quantity('50k').asInteger() == 50000",
        "quantity('1').add(quantity('500m')).sub(1).compareTo(quantity('0.5')) == 0 && !isQuantity('x')",
        "quantity('200M') == quantity('0.2G')",
        "ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && !isIP('10.0.0.256')",
        "ip.isCanonical('2001:db8::') && !ip.isCanonical('2001:DB8::')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "string(cidr('10.1.2.3/8').masked()) == '10.0.0.0/8' && cidr('::/0').prefixLength() == 0",
        "url('https://user@example.com:80/path?a=1&a=2').getHost() == 'example.com:80'",
        "url('https://example.com/p%20q').getEscapedPath() == '/p%20q' && !isURL('../x')",
        "url('https://e.com/?k=a&k=b').getQuery()['k'] == ['a', 'b']",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true) && semver('2.0.1').major() == 2",
        "!format.dns1123Label().validate('my-name').hasValue()",
        "format.named('dns1123Label').value().validate('My_Name').value().size() == 1",
        "format.uuid().validate('x').hasValue() && !format.date().validate('2021-01-01').hasValue()",
    ]);
}

#[test]
fn times_are_counted() {
    holds(&[
        "timestamp('2024-02-29T10:20:30Z') - duration('1h') == timestamp('2024-02-29T09:20:30Z')",
        "timestamp('2024-02-29T10:20:30Z').getMonth() == 1 && timestamp('2024-02-29T10:20:30Z').getDayOfMonth() == 28",
        "timestamp('2024-02-29T23:20:30Z').getDate('+02:00') == 1",
        "duration('90m').getHours() == 1 && string(duration('90m')) == '5400s'",
        "type(duration('1s')) == type(duration('2s')) && type(1) == int",
        "timestamp(0) < timestamp('2024-01-01T00:00:00Z')",
    ]);
}

#[test]
fn conversions_say_what_they_cannot() {
    check(&[
        ("int('12') + int(3.9) + int(4u)", json!(19)),
        ("string(1) + string(true) + string(1.5)", json!("1true1.5")),
        ("double('1.5')", json!(1.5)),
        ("bool('true')", json!(true)),
    ]);
    assert_eq!(evaluate("int('x')"), Err("type conversion error from \"x\" to 'int'".into()));
    assert_eq!(evaluate("9223372036854775807 + 1"), Err("integer overflow".into()));
    assert_eq!(evaluate("1 / 0"), Err("division by zero".into()));
    assert_eq!(evaluate("[1][5]"), Err("index out of bounds: 5".into()));
    assert_eq!(evaluate("uint(-1)"), Err("unsigned integer overflow".into()));
}

#[test]
fn objects_are_made_under_the_types_of_their_places() {
    check(&[
        (
            "Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?gone: object.?missing}}",
            json!({"spec": {"replicas": 4}}),
        ),
        (
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]",
            json!([{"op": "add", "path": "/metadata/labels/a~1b", "value": "x"}]),
        ),
        (
            "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'x'}]}}",
            json!({"spec": {"containers": [{"name": "x"}]}}),
        ),
    ]);
    assert_eq!(
        evaluate("Object{spec: Object.status{}}"),
        Err("unexpected type name \"Object.status\", expected \"Object.spec\", which matches field name path from root Object type".into())
    );
}

#[test]
fn wrong_sources_are_refused_with_line_and_column() {
    for (source, message) in [
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting an expression\n | 1 +\n | ...^",
        ),
        ("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^"),
        (
            "true &&\n  bar()",
            "ERROR: <input>:2:6: undeclared reference to 'bar' (in container '')\n |   bar()\n | .....^",
        ),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        (
            "'a'.contains(1)",
            "ERROR: <input>:1:13: found no matching overload for 'contains' applied to 'string.(int)'\n | 'a'.contains(1)\n | ............^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("'x'.matches('(')", "invalid matches argument"),
        ("duration('x')", "invalid duration argument"),
        ("has(object)", "invalid argument to has() macro"),
        ("[1].map(a.b, 1)", "argument must be a simple name"),
        ("for", "reserved identifier: for"),
        ("9223372036854775808", "invalid int literal"),
        ("'abc", "unterminated string"),
        ("1 @ 2", "token recognition error at: '@'"),
        ("Thing{a: 1}", "undeclared reference to 'Thing'"),
        ("1 1", "mismatched input 'literal' expecting <EOF>"),
    ] {
        let error = evaluate(source).unwrap_err();
        assert!(error.contains(message), "{source}: {error}");
    }
}

#[test]
fn fields_that_a_schema_lacks_are_refused() {
    let spec = Record::of("Spec", [("replicas", Type::Int), ("names", Type::list(Type::String))]);
    let environment = Environment::default().variable("self", Record::of("Self", [("spec", spec)]));
    let message = |source: &str| compile(source, &environment).unwrap_err().issues[0].message.clone();
    assert_eq!(message("self.spec.replica > 1"), "undefined field 'replica'");
    assert_eq!(message("has(self.specs)"), "undefined field 'specs'");
    assert_eq!(
        message("self.spec.names.all(n, n > 1)"),
        "found no matching overload for '_>_' applied to '(string, int)'"
    );
    assert_eq!(message("self.spec.replicas.foo"), "type 'int' does not support field selection");
    let program = compile("self.spec.replicas", &environment).unwrap();
    assert_eq!(program.must_give(&[Type::Bool]), Err("must evaluate to bool but got int".into()));
}

#[test]
fn variables_of_a_set_are_computed_once_and_when_they_are_used() {
    let object = object();
    let environment = environment();
    let (broken, names) = (
        compile("object.missing", &environment).unwrap(),
        compile("object.spec.containers.map(c, c.name)", &environment).unwrap(),
    );
    let environment =
        environment.composed("broken", Type::Dyn).composed("names", names.result_type().clone());
    let size = compile("variables.names.size()", &environment).unwrap();
    let environment = environment.composed("size", Type::Int);
    let variables = Variables::default()
        .with("object", Value::of(&object))
        .with_composed("broken", &broken)
        .with_composed("names", &names)
        .with_composed("size", &size);
    let mut budget = Budget::default();
    let program = compile("variables.size == 2", &environment).unwrap();
    assert!(program.holds(&variables, &mut budget).unwrap());
    let first = budget.left();
    assert!(program.holds(&variables, &mut budget).unwrap());
    assert!(first - budget.left() < 10, "what is known is not computed again");
    let uses_broken = compile("variables.broken == 1", &environment).unwrap();
    let error = uses_broken.holds(&variables, &mut budget).unwrap_err();
    assert_eq!(error.to_string(), "composited variable \"broken\" fails to evaluate: no such key: missing");
    let undeclared = compile("variables.other", &environment).unwrap_err();
    assert_eq!(undeclared.issues[0].message, "undefined field 'other'");
}

#[test]
fn the_authorizer_is_asked() {
    struct OnlyGet;
    impl Authorize for OnlyGet {
        fn authorize(&self, request: &AccessRequest) -> Decision {
            let allowed = request.verb == "get" && request.resource == "pods" && request.namespace == "shop";
            Decision { allowed, reason: format!("{:?}", request.service_account), error: None }
        }
    }
    let environment =
        Environment::default().variable("authorizer", Type::Opaque(penstock_expressions::AUTHORIZER));
    let who = std::sync::Arc::new(OnlyGet);
    for source in [
        "authorizer.group('').resource('pods').namespace('shop').check('get').allowed()",
        "!authorizer.group('').resource('pods').namespace('shop').check('list').allowed()",
        "authorizer.serviceAccount('a', 'b').group('').resource('pods').check('get').reason().contains('a')",
        "!authorizer.path('/healthz').check('get').errored()",
    ] {
        let program = compile(source, &environment).unwrap();
        let variables = Variables::default().with("authorizer", Access::of(who.clone()));
        assert_eq!(program.holds(&variables, &mut Budget::default()), Ok(true), "{source}");
    }
    assert!(compile("authorizer.check('get')", &environment).is_err());
}

#[test]
fn values_are_read_by_their_schema() {
    let json = json!({"at": "2024-01-01T00:00:00Z", "for": "1h", "n": 3, "data": "aGk="});
    let shape = Record::of(
        "Self",
        [("at", Type::Timestamp), ("for", Type::Duration), ("n", Type::Double), ("data", Type::Bytes)],
    );
    let environment = Environment::default().variable("self", shape.clone());
    for source in [
        "self.at.getFullYear() == 2024",
        "self.for == duration('60m')",
        "self.n / 2.0 == 1.5",
        "self.data == b'hi'",
    ] {
        let program = compile(source, &environment).unwrap();
        let variables = Variables::default().with("self", Value::of_type(&json, &shape));
        assert_eq!(program.holds(&variables, &mut Budget::default()), Ok(true), "{source}");
    }
    let program = compile("self.n == 1.0", &environment).unwrap();
    let wrong = Variables::default().with("self", Value::Int(1));
    assert!(matches!(
        program.holds(&wrong, &mut Budget::default()),
        Err(EvaluationError::NoSuchOverload { .. })
    ));
}
