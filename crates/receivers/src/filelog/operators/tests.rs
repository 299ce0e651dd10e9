//! What operators do to lines, and what their mistakes are told.

use super::*;
use pipeline::config::Source;
use serde::Deserialize;

fn operators(yaml: &str) -> Result<Operators, String> {
    let text = format!("receivers:\n  x: {{ operators: {yaml} }}\n");
    let config = pipeline::config::Config::load(vec![Source::new("test", text)], &|_| None).unwrap();
    #[derive(Deserialize)]
    struct Settings {
        operators: Vec<Operator>,
    }
    let settings: Settings = config
        .section(&config.receivers[0])
        .parse()
        .map_err(|problems| problems.to_string())?;
    Operators::compile(&settings.operators).map_err(|(at, key, problem)| format!("{at} {key}: {problem}"))
}

fn applied<'a>(yaml: &str, line: &'a str, path: &str) -> Record<'a> {
    let mut record = Record::plain(line);
    operators(yaml).unwrap().apply(&mut record, Some(Path::new(path)));
    record
}

fn shown(members: &Members<'_>) -> String {
    let pairs = members.iter().map(|(key, value)| match value {
        Json::Text(text) => format!("{key}={text}"),
        other => format!("{key}={other:?}"),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

#[test]
fn json_with_time_and_severity() {
    let record = applied(
        "[{type: json_parser, timestamp: {parse_from: attributes.at, layout: '%Y-%m-%d %H:%M:%S'}, severity: {parse_from: attributes.lvl, mapping: {error2: [bad, 500]}}}, \
         {type: move, from: attributes.msg, to: body}, {type: remove, field: attributes.at}, {type: add, field: 'resource[\"service.name\"]', value: shop}, \
         {type: copy, from: attributes.o.k, to: attributes.k}, {type: trace_parser, trace_id: {parse_from: attributes.t}}]",
        r#"{"at":"2023-11-14 22:13:20","lvl":"BAD","msg":"it \"broke\"","o":{"k":7},"t":"0af7651916cd43dd8448eb211c80319c"}"#,
        "",
    );
    assert_eq!(record.time_unix_nano, 1_700_000_000_000_000_000);
    assert_eq!((record.severity_number, record.severity_text.as_ref()), (18, "BAD"));
    assert_eq!(record.body.as_text(), Some("it \"broke\""));
    assert_eq!(shown(&record.resource), "service.name=shop");
    assert!(record.trace_id.is_some());
    assert!(
        shown(&record.attributes).ends_with("k=Int(7)"),
        "{}",
        shown(&record.attributes)
    );
}

#[test]
fn a_pattern_with_groups() {
    let yaml = "[{type: regex_parser, regex: '^(?P<at>\\d+) (?P<level>\\w+) (?P<msg>.*)$', timestamp: {parse_from: attributes.at, layout_type: epoch, layout: s}, severity: {parse_from: attributes.level}}]";
    let record = applied(yaml, "1700000000 WARN disk is full", "");
    assert_eq!(
        (record.time_unix_nano, record.severity_number),
        (1_700_000_000_000_000_000, 13)
    );
    assert_eq!(shown(&record.attributes), "at=1700000000 level=WARN msg=disk is full");
    let record = applied(yaml, "something else", "");
    assert_eq!(
        record,
        Record::plain("something else"),
        "what does not match goes on as it is"
    );
}

#[test]
fn lines_of_containers() {
    let path = "/var/log/pods/shop_cart-7d_0af7-65/cart/3.log";
    let expect = "k8s.namespace.name=shop k8s.pod.name=cart-7d k8s.pod.uid=0af7-65 k8s.container.name=cart k8s.container.restart_count=3";
    let record = applied(
        "[{type: container}]",
        "2023-11-14T22:13:20.5Z stderr F it broke here",
        path,
    );
    assert_eq!(
        (record.time_unix_nano, record.body.as_text()),
        (1_700_000_000_500_000_000, Some("it broke here"))
    );
    assert_eq!(shown(&record.attributes), "log.iostream=stderr logtag=F");
    assert_eq!(shown(&record.resource), expect);
    let line = r#"{"log":"it broke\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}"#;
    let record = applied("[{type: container, add_metadata_from_filepath: false}]", line, path);
    assert_eq!(
        (record.time_unix_nano, record.body.as_text()),
        (1_700_000_000_000_000_000, Some("it broke"))
    );
    assert_eq!(
        (shown(&record.attributes), shown(&record.resource)),
        ("log.iostream=stdout".into(), String::new())
    );
    for line in ["{\"no\": \"log\"}", "no time stdout F x", "", "2023-11-14T22:13:20Z"] {
        assert_eq!(applied("[{type: container}]", line, "/x.log"), Record::plain(line));
    }
}

#[test]
fn mistakes_say_what_to_write() {
    for (yaml, expect) in [
        ("[{type: recombine}]", "write `multiline`"),
        ("[{type: filter}]", "the processor `filter`"),
        ("[{type: router}]", "`transform` processor has ParseJSON"),
        (
            "[{type: json_parser, if: 'body matches \"x\"'}]",
            "conditions are not evaluated",
        ),
        ("[{type: json_parser, output: x}]", "leave `output` out"),
        ("[{type: json_parser, on_error: drop}]", "no line is lost here"),
        ("[{type: json_parser, parse_from: bdy}]", "does not begin with `body`"),
        ("[{type: regex_parser, regex: 'x'}]", "no named group"),
        ("[{type: regex_parser}]", "needs `regex`"),
        (
            "[{type: time_parser, parse_from: attributes.t, layout: '%Q'}]",
            "a directive that is not known",
        ),
        (
            "[{type: time_parser, parse_from: attributes.t, layout: '02.01.2006', layout_type: gotime}]",
            "only RFC 3339",
        ),
        (
            "[{type: severity_parser, parse_from: attributes.l, mapping: {loud: x}}]",
            "`loud` is not a level",
        ),
        ("[{type: move, from: body}]", "needs `to`"),
        ("[{type: add, field: attributes.x, value: 'EXPR(1)'}]", "has `set`"),
        ("[{type: json_parser, timestmp: {}}]", "did you mean `timestamp`?"),
    ] {
        let said = operators(yaml).err().unwrap_or_default();
        assert!(said.contains(expect), "{yaml}: {said}");
    }
}
